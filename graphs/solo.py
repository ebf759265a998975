"""The tool-free graph: one turn, no experts in the prompt and none in the graph."""

from __future__ import annotations

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.types import Role
from graphs.builders import Parts
from graphs.consult import Graph
from graphs.policy_node import make_policy_node
from graphs.state import OurGraph


def build_solo_graph(
    policy: PolicyChatModel, *, checkpointer: BaseCheckpointSaver[str] | None = None
) -> Graph:
    """Build the tool-free graph. A tool call that the policy writes anyway is not sent."""
    graph = OurGraph(Role.SOLO)
    graph.add_node("policy", make_policy_node(policy, lambda context: 1))
    graph.add_edge(START, "policy")
    graph.add_edge("policy", END)
    return graph.compile(checkpointer=checkpointer, name="solo")


def build(policy: PolicyChatModel, parts: Parts) -> Graph:
    """Build the graph `solo` of a recipe."""
    return build_solo_graph(policy)
