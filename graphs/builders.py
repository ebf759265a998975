"""Graphs by name: ours, and `package.module:function` of a user's.

Ours are built as `build(policy, parts, **options)`. A user's function is called with (policy) or
(policy, tools), as its signature asks, and with the recipe's `graph_options` by keyword.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

from eapo_agents.errors import EapoError, UsageError
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.registry import Registry, describe
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget

AnyGraph = CompiledStateGraph[Any, Any, Any, Any]
"""One of our graphs or a user's."""
Checkpointer = BaseCheckpointSaver[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What our graphs are built of beside the policy."""

    pool: ExpertPool
    acceptance: AcceptanceSchedule
    turns: TurnBudget
    max_queries: int


def _callable(found: object) -> Callable[..., object] | None:
    return found if callable(found) and not isinstance(found, type) else None


GRAPHS = Registry[Callable[..., object]](
    "graph",
    {
        "consult": "graphs.consult:build",
        "solo": "graphs.solo:build",
        "workflow": "graphs.baselines:build_workflow",
        "leap": "graphs.baselines:build_leap",
    },
    accept=_callable,
    rule="a function (policy) or (policy, tools) that returns a compiled graph",
)
_WITHOUT_EXPERTS = {"consult": "solo", "workflow": "solo"}
"""Ours -> its variant without experts, where that is another."""


def build_graph(
    name: str,
    policy: PolicyChatModel,
    parts: Parts,
    options: Mapping[str, object],
    *,
    with_experts: bool = True,
    checkpointer: Checkpointer | None = None,
) -> AnyGraph:
    """Build the graph of that name, or its variant without experts.

    Raises:
        UsageError: no such graph, options that do not fit, or what was built is not a graph.
    """
    if not with_experts and name in _WITHOUT_EXPERTS:
        name, options = _WITHOUT_EXPERTS[name], {}
    build = GRAPHS.find(name)
    tools = parts.pool.tools if with_experts else []
    given = (policy, parts) if name in GRAPHS else _given(build, policy, tools)
    try:
        inspect.signature(build).bind(*given, **options)
    except TypeError as error:
        raise UsageError(
            f"The graph '{name}' cannot be built with graph_options {dict(options)}: {error}."
        ) from error
    try:
        built = build(*given, **options)
    except EapoError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UsageError(
            f"The graph '{name}' cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(built, CompiledStateGraph):
        hint = ": call its compile()" if hasattr(built, "compile") else ""
        raise UsageError(
            f"The graph '{name}' must return a compiled graph, and returned "
            f"{describe(built)}{hint}."
        )
    return built.copy({"checkpointer": checkpointer}) if checkpointer is not None else built


def _given(
    build: Callable[..., object], policy: PolicyChatModel, tools: Sequence[BaseTool]
) -> tuple[object, ...]:
    """What a user's function takes: the tools too where it has a `tools`, or requires a second
    argument."""
    taken = [
        parameter
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    wants_tools = len(taken) > 1 and (
        taken[1].name == "tools" or taken[1].default is inspect._empty
    )
    return (policy, list(tools)) if wants_tools else (policy,)
