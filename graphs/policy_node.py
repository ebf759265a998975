"""The policy's node, the same in every graph: one turn, and why the run stops if it does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langgraph.runtime import Runtime

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.types import StopReason
from graphs.state import AgentState, RolloutContext


class PolicyNode(Protocol):
    """The shape of node that LangGraph takes."""

    def __call__(
        self, state: AgentState, runtime: Runtime[RolloutContext]
    ) -> Awaitable[dict[str, Any]]: ...


def make_policy_node(
    policy: Runnable[Any, AIMessage], max_turns: Callable[[RolloutContext], int]
) -> PolicyNode:
    """A node that takes one turn. `max_turns` gives T for a rollout."""

    async def call_policy(state: AgentState, runtime: Runtime[RolloutContext]) -> dict[str, Any]:
        context = runtime.context or RolloutContext()
        turn = state.get("num_turns", 0)
        key = RolloutKey(
            seed=context.seed,
            problem_id=context.problem_id,
            step=context.global_step,
            rollout=context.rollout,
            turn=turn,
        )
        message = await policy.ainvoke(state["messages"], rollout_key=key)
        update: dict[str, Any] = {"messages": [message], "num_turns": turn + 1}
        reason = stop_reason(message, last_turn=turn + 1 >= max_turns(context))
        if reason is not None:
            update["stop_reason"] = reason.value
        return update

    return call_policy


def stop_reason(message: AIMessage, *, last_turn: bool) -> StopReason | None:
    """Why the run ends after this turn, or None where queries are to be sent."""
    if message.response_metadata.get("finish_reason") == "length":
        return StopReason.LENGTH
    if message.tool_calls or message.invalid_tool_calls:
        return StopReason.TURN_BUDGET if last_turn else None
    return StopReason.ANSWERED if message.text.strip() else StopReason.EMPTY
