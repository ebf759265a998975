"""The policy's node, the same in every graph: it takes one turn and says why the run stops."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langgraph.runtime import Runtime

from eapo_agents.errors import BudgetError
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.types import StopReason
from graphs.state import AgentState, RolloutContext

BUDGET = "budget_spent"
"""Key in the artifact of a tool message whose query the budget did not allow."""


class PolicyNode(Protocol):
    """The shape of node that LangGraph takes."""

    def __call__(
        self, state: AgentState, runtime: Runtime[RolloutContext]
    ) -> Awaitable[dict[str, object]]: ...


def make_policy_node(
    policy: Runnable[LanguageModelInput, AIMessage],
    max_turns: Callable[[RolloutContext], int],
    tool_free: Runnable[LanguageModelInput, AIMessage] | None = None,
    *,
    keeps_tools: bool = False,
) -> PolicyNode:
    """Return a node that takes one turn.

    Args:
        max_turns: T for a rollout, counted from the user's last message.
        tool_free: the policy without experts, for a context with `solo`.
        keeps_tools: whether it has tools then, so that it may take several turns.
    """

    async def call_policy(state: AgentState, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context = runtime.context or RolloutContext()
        turn = state.get("num_turns", 0)
        key = RolloutKey(
            seed=context.seed,
            problem_id=context.problem_id,
            step=context.global_step,
            rollout=context.rollout,
            turn=turn,
        )
        refuse_spent_budget(state["messages"])
        solo = context.solo and tool_free is not None
        speaking = tool_free if solo and tool_free is not None else policy
        message = await speaking.ainvoke(state["messages"], rollout_key=key)
        taken = turns_taken(state["messages"]) + 1
        last = (solo and not keeps_tools) or taken >= max_turns(context)
        reason = stop_reason(message, last_turn=last)
        return {
            "messages": [message],
            "num_turns": turn + 1,
            "stop_reason": reason.value if reason else None,
            # a question's later turns too, whatever context it was resumed with
            "review": context.review or (state.get("review", False) and taken > 1),
        }

    return call_policy


def bound(
    policy: RecordedChatModel, tools: Sequence[BaseTool]
) -> Runnable[LanguageModelInput, AIMessage]:
    """Return the policy with these tools; as it is without any."""
    return policy.bind_tools(tools) if tools else policy


def refuse_spent_budget(messages: Sequence[AnyMessage]) -> None:
    """End the run if a query of the last turn met a spent budget. This happens here, and not in the
    query's branch, so that the other queries of the turn, which are paid for, still end.

    Raises:
        BudgetError: the budget is spent.
    """
    for message in reversed(messages):
        if not isinstance(message, ToolMessage):
            break
        if isinstance(message.artifact, dict) and BUDGET in message.artifact:
            raise BudgetError(message.artifact[BUDGET])


def turns_taken(messages: Sequence[AnyMessage]) -> int:
    """Return the number of the policy's turns since the user's last message."""
    taken = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        taken += isinstance(message, AIMessage)
    return taken


def stop_reason(message: AIMessage, *, last_turn: bool) -> StopReason | None:
    """Return why the run ends after this turn; None if queries are to be sent."""
    if message.response_metadata.get("finish_reason") == "length":
        return StopReason.LENGTH
    if message.tool_calls or message.invalid_tool_calls:
        return StopReason.TURN_BUDGET if last_turn else None
    return StopReason.ANSWERED if message.text.strip() else StopReason.EMPTY
