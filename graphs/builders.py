"""Graphs by name: ours, and `package.module:function` of a user's.

Ours are built as `build(policy, parts, **options)`. A user's function is called with (policy) or
(policy, tools), as its signature asks, and with the recipe's `graph_options` by keyword. `tools`
are the experts under the recipe's acceptance, and the recipe's ordinary tools, which the graph
without experts has too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph
from typing_extensions import is_typeddict

from eapo_agents.errors import EapoError, UsageError
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.registry import Registry, describe, import_object
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from graphs.state import AnyGraph as AnyGraph

Checkpointer = BaseCheckpointSaver[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What our graphs are built of beside the policy."""

    pool: ExpertPool
    acceptance: AcceptanceSchedule
    turns: TurnBudget
    max_queries: int
    tools: Sequence[BaseTool] = ()
    """Ordinary tools, which stay where the experts are not."""


def _callable(found: object) -> Callable[..., object] | None:
    return found if callable(found) and not isinstance(found, type) else None


GRAPHS = Registry[Callable[..., object]](
    "graph",
    {
        "consult": "graphs.consult:build",
        "solo": "graphs.solo:build",
        "workflow": "graphs.baselines:build_workflow",
        "leap": "graphs.baselines:build_leap",
        "hinted": "graphs.hinted:build_hinted",
        "critique": "graphs.hinted:build_critique",
    },
    accept=_callable,
    rule="a function (policy) or (policy, tools) that returns a compiled graph",
)
_WITHOUT_EXPERTS = dict.fromkeys(("consult", "workflow", "hinted", "critique"), "solo")
"""Ours -> its variant without experts, where that is another."""


def build_graph(
    name: str,
    policy: RecordedChatModel,
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
    given: tuple[object, ...] = (policy, parts)
    if name not in GRAPHS:
        experts = (
            parts.pool.tools_under(parts.acceptance, parts.max_queries) if with_experts else []
        )
        takes = takes_tools(build)
        if parts.tools and not takes:
            raise UsageError(
                f"The recipe names tools, and the graph '{name}' takes none: let it take (policy, "
                "tools), or name no tools."
            )
        given = (policy, [*experts, *parts.tools]) if takes else (policy,)
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
    _refuse_needy_context(name, built)
    return built.copy({"checkpointer": checkpointer}) if checkpointer is not None else built


def find_function(name: str | None, what: str) -> Callable[..., Any] | None:
    """Return the function that a recipe names as its `what`; None where it names none.

    Raises:
        UsageError: there is no such function.
    """
    if name is None:
        return None
    found = _callable(import_object(name, what=what))
    if found is None:
        raise UsageError(f"The {what} '{name}' must be a function, and it is not.")
    return found


def takes_tools(build: Callable[..., object]) -> bool:
    """Return whether a user's function takes the experts: it has a `tools`, or requires a second
    argument."""
    taken = [
        parameter
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    return len(taken) > 1 and (taken[1].name == "tools" or taken[1].default is inspect._empty)


def _refuse_needy_context(name: str, graph: AnyGraph) -> None:
    """Raise UsageError where a graph's context cannot be made: a rollout has nobody to give it."""
    schema = graph.context_schema
    if schema is None:
        return
    try:
        made = schema()
    except Exception as error:  # a user's class may raise anything
        needs = " ".join(str(error).split())
    else:
        required = schema.__required_keys__ if is_typeddict(schema) else ()
        needs = ", ".join(sorted(key for key in required if key not in made))
    if needs:
        raise UsageError(
            f"The graph '{name}' has a context_schema, {schema.__name__}, that cannot be made from "
            f"its defaults ({needs}): give each of its fields a default."
        )
