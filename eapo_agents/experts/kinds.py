"""Makes experts from a recipe's entries, by the name of their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from langchain_core.tools import BaseTool

from eapo_agents.errors import UsageError
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.usage import FREE

KINDS: dict[str, str] = {
    "human": "eapo_agents.experts.human:human_tool",
    "mcp": "eapo_agents.experts.user_tool:mcp_tool",
    "noisy": "eapo_agents.experts.noisy:noisy_tool",
    "openai-chat": "eapo_agents.experts.openai_chat:openai_chat_tools",
    "scripted": "eapo_agents.experts.scripted:scripted_tool",
    "solver": "eapo_agents.experts.solver:solver_tool",
    "tool": "eapo_agents.experts.user_tool:langchain_tool",
    "transformers": "eapo_agents.experts.local_model:transformers_tool",
}
"""Kind -> "module:function" that makes the tool, or one for each endpoint, from its name and the
recipe's options."""
STORED = frozenset({"openai-chat", "transformers"})
"""Kinds whose replies are stored by default: they cost money or time."""
_SECRET = ("api_key", "key", "token", "password", "secret", "authorization")


def make_tools(kind: str, name: str, options: Mapping[str, Any]) -> list[BaseTool]:
    """The tools of one kind.

    Raises:
        UsageError: an unknown kind, options that do not fit, or a key among them.
    """
    if kind not in KINDS:
        raise UsageError(f"Unknown expert kind '{kind}': use one of {', '.join(sorted(KINDS))}.")
    secret = _secret_in(options)
    if secret:
        raise UsageError(
            f"Expert '{name}' must not hold a key ('{secret}'), since recipes are printed and "
            "saved: put it into an environment variable and name that with api_key_env."
        )
    module, function = KINDS[kind].split(":")
    make: Callable[..., BaseTool | list[BaseTool]] = getattr(import_module(module), function)
    try:
        made = make(name, **options)
    except TypeError as error:
        raise UsageError(f"The options of expert '{name}' ({kind}) do not fit: {error}.") from error
    return made if isinstance(made, list) else [made]


def make_expert(
    kind: str,
    *,
    name: str,
    options: Mapping[str, Any],
    stored: bool | None = None,
    **settings: Any,
) -> Expert:
    """Makes an expert.

    Args:
        stored: whether replies are stored and found again; None is the kind's default.
        settings: fields of `Expert`.
    """
    first, *more = make_tools(kind, name, options)
    paid = _paid_kind(kind, options) == "openai-chat"
    if stored is None:
        stored = _paid_kind(kind, options) in STORED
    if settings.get("price") is None:
        settings["price"] = None if paid else FREE
    # the same model at another address gives the same replies
    what = {key: value for key, value in options.items() if key != "base_url"}
    return Expert(
        tool=first,
        replicas=tuple(more),
        kind=kind,
        identity={"kind": kind, "options": what} if stored else None,
        interactive=kind == "human",
        **settings,
    )


def _secret_in(options: Mapping[str, Any]) -> str | None:
    for option, value in options.items():
        if str(option).lower() in _SECRET:
            return str(option)
        found = _secret_in(value) if isinstance(value, Mapping) else None
        if found:
            return found
    return None


def _paid_kind(kind: str, options: Mapping[str, Any]) -> str:
    """Of a noisy expert, the kind that it wraps."""
    of = options.get("of")
    return _paid_kind(str(of.get("kind")), of) if kind == "noisy" and of else kind
