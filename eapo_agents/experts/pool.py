"""The pool of experts, offered to the policy as LangChain tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from langchain_core.tools import BaseTool

from eapo_agents.errors import UsageError

KINDS: dict[str, str] = {
    "solver": "eapo_agents.experts.solver:solver_tool",
    "scripted": "eapo_agents.experts.scripted:scripted_tool",
}
"""Kind -> "module:function" that makes the tool from its name and the recipe's options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """One expert: a LangChain tool and how long a call to it may take."""

    tool: BaseTool
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class ExpertPool:
    """Named experts. Any LangChain tool can be put in."""

    experts: Sequence[Expert] = field(default_factory=tuple)

    def __post_init__(self) -> None:
        names = [expert.tool.name for expert in self.experts]
        if len(set(names)) != len(names):
            raise UsageError(f"Experts need different names, got {', '.join(names)}.")

    @property
    def tools(self) -> list[BaseTool]:
        """What the policy is offered."""
        return [expert.tool for expert in self.experts]

    def get(self, name: str) -> Expert | None:
        """The expert of that name, or None."""
        return next((expert for expert in self.experts if expert.tool.name == name), None)


def make_expert(kind: str, *, name: str, timeout_s: float, options: Mapping[str, Any]) -> Expert:
    """Makes an expert from a recipe's entry; an unknown kind lists the known ones."""
    if kind not in KINDS:
        raise UsageError(f"Unknown expert kind '{kind}': use one of {', '.join(sorted(KINDS))}.")
    module, function = KINDS[kind].split(":")
    make: Callable[..., BaseTool] = getattr(import_module(module), function)
    try:
        return Expert(tool=make(name, **options), timeout_s=timeout_s)
    except TypeError as error:
        raise UsageError(f"The options of expert '{name}' ({kind}) do not fit: {error}.") from error
