"""Make experts from a recipe's entries, by the name of their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from langchain_core.tools import BaseTool

from eapo_agents.errors import UsageError
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.usage import FREE
from eapo_agents.registry import Registry, describe


def _callable(found: object) -> Callable[..., object] | None:
    return found if callable(found) else None


KINDS = Registry[Callable[..., object]](
    "expert kind",
    {
        "human": "eapo_agents.experts.human:human_tool",
        "mcp": "eapo_agents.experts.user_tool:mcp_tool",
        "noisy": "eapo_agents.experts.noisy:noisy_tool",
        "openai-chat": "eapo_agents.experts.openai_chat:openai_chat_tools",
        "reference": "eapo_agents.experts.reference:reference_tool",
        "retrieval": "eapo_agents.experts.retrieval:retrieval_tool",
        "scripted": "eapo_agents.experts.scripted:scripted_tool",
        "solver": "eapo_agents.experts.solver:solver_tool",
        "tool": "eapo_agents.experts.user_tool:langchain_tool",
        "transformers": "eapo_agents.experts.local_model:transformers_tool",
    },
    accept=_callable,
    rule="a function (name, **options) that returns a LangChain tool, or one per endpoint",
)
STORED = frozenset({"openai-chat", "transformers"})
"""Kinds whose replies are stored by default: they cost money or time."""
_SECRET = ("api_key", "key", "token", "password", "secret", "authorization")


def make_tools(kind: str, name: str, options: Mapping[str, object]) -> list[BaseTool]:
    """Return the tools of one kind, one per endpoint.

    Raises:
        UsageError: an unknown kind, options that do not fit, or a key among them.
    """
    make = KINDS.find(kind)
    secret = secret_in(options)
    if secret:
        raise UsageError(
            f"Expert '{name}' must not hold a key ('{secret}'), since recipes are printed and "
            "saved: put it into an environment variable and name that with api_key_env."
        )
    try:
        made = make(name, **options)
    except TypeError as error:
        raise UsageError(f"The options of expert '{name}' ({kind}) do not fit: {error}.") from error
    every = made if isinstance(made, list) else [made]
    tools = [tool for tool in every if isinstance(tool, BaseTool)]
    if len(tools) < len(every) or not tools:
        raise UsageError(
            f"The expert kind '{kind}' must return a LangChain tool, and returned "
            f"{describe(made)} for '{name}'."
        )
    return tools


def make_expert(
    kind: str,
    *,
    name: str,
    options: Mapping[str, object],
    stored: bool | None = None,
    **settings: Any,
) -> Expert:
    """Make an expert.

    Args:
        stored: whether replies are stored and reused; None is the kind's default.
        settings: fields of `ExpertSettings`.
    """
    first, *more = make_tools(kind, name, options)
    wrapped = _wrapped_kind(kind, options)
    of_problem = wrapped == "retrieval" and options.get("field") is not None
    if stored and (wrapped == "reference" or of_problem):
        raise UsageError(
            f"Replies are found by the query, and those of '{name}' ({wrapped}) depend on the "
            "problem: leave `stored` out."
        )
    if stored is None:
        stored = wrapped in STORED
    if settings.get("price") is None:
        # what a service or a user's own tool costs is not known
        settings["price"] = None if wrapped == "openai-chat" or ":" in wrapped else FREE
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


def secret_in(options: Mapping[str, object]) -> str | None:
    """Return the first option that is a key by its name."""
    for option, value in options.items():
        if str(option).lower() in _SECRET:
            return str(option)
        found = secret_in(value) if isinstance(value, Mapping) else None
        if found:
            return found
    return None


def _wrapped_kind(kind: str, options: Mapping[str, object]) -> str:
    """The kind that a noisy expert wraps; any other's own."""
    of = options.get("of")
    return (
        _wrapped_kind(str(of.get("kind")), of) if kind == "noisy" and isinstance(of, dict) else kind
    )
