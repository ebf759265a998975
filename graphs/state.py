"""State and context of the graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, NotRequired

from langchain_core.messages import AnyMessage
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph

# on Python 3.11 the development server loses the schemas of a state made with typing's own
from typing_extensions import TypedDict

from eapo_agents.types import Role

AnyGraph = CompiledStateGraph[Any, Any, Any, Any]
"""One of our graphs or a user's."""


class AgentState(TypedDict):
    """What flows through both graphs. The whole record of a run rides on its messages."""

    messages: Annotated[list[AnyMessage], add_messages]
    num_turns: NotRequired[int]
    """Turns that the policy has taken in the whole conversation."""
    stop_reason: NotRequired[str | None]
    """A `StopReason`, set when the policy is done with what the user said last."""
    review: NotRequired[bool]
    """Whether the calls of the last turn wait for a person, as its context said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutContext:
    """Names one rollout: its random numbers and coins are functions of this alone."""

    problem_id: str = ""
    seed: int = 0
    rollout: int = 0
    """Index within its group."""
    global_step: int = 0
    """Training step s (from 1), at which the schedules are read; 0 outside training."""
    rho: float | None = None
    """Takes the place of the schedule's rho, where a person sets it."""
    watched: bool = False
    """Somebody watches: experts that can, stream what they write."""
    review: bool = False
    """A person approves, edits or refuses each call to an expert before it is sent."""
    solo: bool = False
    """The consult graph without its experts, to compare: none in the prompt, none asked."""


class OurGraph(StateGraph[AgentState, RolloutContext, AgentState, AgentState]):
    """The consult graph or the solo graph: it says what its rollouts are for in training."""

    def __init__(self, role: Role) -> None:
        super().__init__(AgentState, context_schema=RolloutContext)
        self.role = role


def role_of(graph: AnyGraph) -> Role:
    """Return the role of a graph's rollouts. It does not depend on the graph's name."""
    return graph.builder.role if isinstance(graph.builder, OurGraph) else Role.OWN
