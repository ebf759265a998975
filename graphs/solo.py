"""The graph without experts: none in the prompt and none in the graph. One turn, or several where
there are ordinary tools."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START
from langgraph.types import Send

from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.schedules import TurnBudget
from eapo_agents.types import Role
from graphs.builders import Parts
from graphs.consult import Graph
from graphs.policy_node import bound, make_policy_node
from graphs.state import AgentState, OurGraph
from graphs.tool_node import Call, make_tool_node, next_calls


def build_solo_graph(
    policy: RecordedChatModel,
    *,
    tools: Sequence[BaseTool] = (),
    turns: TurnBudget | None = None,
    checkpointer: BaseCheckpointSaver[str] | None = None,
) -> Graph:
    """Build the graph without experts.

    Without tools, a call that the policy writes anyway is not sent.

    Args:
        turns: global step -> T, where there are tools.
    """
    budget = turns if tools and turns is not None else TurnBudget(start=1, end=1)

    def route(state: AgentState) -> list[Send] | str:
        return [Send("tools", call) for call in next_calls(state, tools)] or END

    graph = OurGraph(Role.SOLO)
    node = make_policy_node(bound(policy, tools), lambda context: budget.turns(context.global_step))
    graph.add_node("policy", node)
    graph.add_node("tools", make_tool_node(tools), input_schema=Call)
    graph.add_edge(START, "policy")
    graph.add_conditional_edges("policy", route, ["tools", END])
    graph.add_edge("tools", "policy")
    return graph.compile(checkpointer=checkpointer, name="solo")


def build(policy: RecordedChatModel, parts: Parts) -> Graph:
    """Build the graph `solo` of a recipe."""
    return build_solo_graph(policy, tools=parts.tools, turns=parts.turns)
