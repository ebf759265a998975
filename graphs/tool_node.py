"""The node of ordinary tools, which our graphs share."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NotRequired, Protocol

from langchain_core.messages import AIMessage, ToolCall
from langchain_core.tools import BaseTool
from typing_extensions import TypedDict

from eapo_agents.policy.chat_messages import call_slot, reason_of
from eapo_agents.tools import use_tool
from graphs.state import AgentState


class Call(TypedDict):
    """One call of a turn: the input of one branch."""

    slot: int
    """Position among the turn's calls, from 0."""
    rank: int
    """Position among those of them that are not of tools."""
    turn: int
    name: str | None
    args: dict[str, object] | str
    id: str
    problem: str | None
    """Why the call cannot be sent; None if it can."""
    review: NotRequired[bool]
    """A person approves, edits or refuses it before it is sent."""


class ToolNode(Protocol):
    """The shape of node that LangGraph takes."""

    def __call__(self, state: Call) -> Awaitable[dict[str, object]]: ...


def make_tool_node(tools: Sequence[BaseTool]) -> ToolNode:
    """Return the node that takes one call to its end."""

    async def use(state: Call) -> dict[str, object]:
        args = state["args"] if isinstance(state["args"], dict) else {}
        call = ToolCall(name=state["name"] or "?", args=args, id=state["id"], type="tool_call")
        return {"messages": [await use_tool(tools, call)]}

    return use


def next_calls(state: AgentState, tools: Sequence[BaseTool]) -> list[Call]:
    """Return the calls of the turn that a graph goes on from; none where that was the last."""
    if state.get("stop_reason"):
        return []
    message = state["messages"][-1]
    assert isinstance(message, AIMessage)
    return calls_of(message, state.get("num_turns", 1) - 1, tools)


def calls_of(message: AIMessage, turn: int, tools: Sequence[BaseTool]) -> list[Call]:
    """Return the turn's calls, well-formed or not, in the order in which they were written."""
    written: list[tuple[str | None, str | None, dict[str, object] | str, str | None]] = [
        (c["id"], c["name"], c["args"], None) for c in message.tool_calls
    ]
    written += [
        (c["id"], None, c["args"] or "", reason_of(message, c)) for c in message.invalid_tool_calls
    ]
    names = {tool.name for tool in tools}
    found: list[Call] = []
    rank = 0
    for call_id, name, args, problem in sorted(written, key=lambda one: call_slot(str(one[0]))):
        assert call_id is not None  # the policy's chat model gives every call an id
        found.append(
            Call(
                slot=call_slot(call_id),
                rank=rank,
                turn=turn,
                name=name,
                args=args,
                id=call_id,
                problem=problem,
            )
        )
        rank += name not in names
    return found
