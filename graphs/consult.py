"""The EAPO graph: `policy -> consult (K in parallel) -> policy -> ... -> end`.

Every call that the policy writes becomes a `Send` of its own to the consult node, so the replies of
a turn are in flight together; LangGraph hands them back in the order of the calls, whatever order
they finish in. The timeout and every failure are handled inside the node: a branch that raises
would end the whole run, and one that LangGraph's error handler finishes comes a superstep after its
siblings, when the policy has already gone on.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send
from typing_extensions import TypedDict

from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.chat_model import PolicyChatModel, call_slot
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget, coin
from eapo_agents.types import Consultation, ConsultationStatus
from graphs.policy_node import make_policy_node
from graphs.state import AgentState, RolloutContext

Graph = CompiledStateGraph[AgentState, RolloutContext, AgentState, AgentState]

UNAVAILABLE = "The expert is unavailable. Go on alone."
"""What the policy is told of a withheld reply, a failure and a timeout alike."""
NOT_SENT = "Not sent: too many queries in one turn."


class _Query(TypedDict):
    """What one branch is sent."""

    slot: int
    turn: int
    name: str | None
    args: dict[str, Any] | str
    id: str
    problem: str | None
    """Why it cannot be sent; None where it can."""


def build_consult_graph(
    policy: PolicyChatModel,
    pool: ExpertPool,
    *,
    acceptance: AcceptanceSchedule,
    turns: TurnBudget,
    max_queries: int = 3,
    checkpointer: BaseCheckpointSaver[Any] | None = None,
) -> Graph:
    """The consult graph over a policy and a pool.

    Args:
        acceptance: global step -> rho.
        turns: global step -> T.
        max_queries: K, the most queries that one turn may send.
    """

    async def consult(state: _Query, runtime: Runtime[RolloutContext]) -> dict[str, Any]:
        context = runtime.context or RolloutContext()
        rho = acceptance.rho(context.global_step)
        u = coin(
            context.seed,
            context.problem_id,
            context.global_step,
            context.rollout,
            state["turn"],
            state["slot"],
        )
        consultation = await _consult(state, pool, rho=rho, u=u, max_queries=max_queries)
        message = ToolMessage(
            content=consultation.reply,
            tool_call_id=state["id"],
            name=consultation.expert or None,
            artifact={**asdict(consultation), "status": consultation.status.value},
        )
        return {"messages": [message]}

    def route(state: AgentState) -> list[Send] | str:
        if state.get("stop_reason"):
            return END
        message = state["messages"][-1]
        assert isinstance(message, AIMessage)
        turn = state.get("num_turns", 1) - 1
        return [Send("consult", {**query, "turn": turn}) for query in queries_of(message)]

    graph = StateGraph(AgentState, context_schema=RolloutContext)
    bound = policy.bind_tools(pool.tools) if pool.tools else policy
    graph.add_node(
        "policy", make_policy_node(bound, lambda context: turns.turns(context.global_step))
    )
    graph.add_node("consult", consult, input_schema=_Query)
    graph.add_edge(START, "policy")
    graph.add_conditional_edges("policy", route, ["consult", END])
    graph.add_edge("consult", "policy")
    return graph.compile(checkpointer=checkpointer, name="consult")


def queries_of(message: AIMessage) -> list[dict[str, Any]]:
    """The turn's calls, well-formed or not, in the order in which they were written."""
    queries: list[dict[str, Any]] = [
        {"name": call["name"], "args": call["args"], "id": call["id"], "problem": None}
        for call in message.tool_calls
    ]
    queries += [
        {"name": None, "args": call["args"], "id": call["id"], "problem": call["error"]}
        for call in message.invalid_tool_calls
    ]
    for query in queries:
        query["slot"] = call_slot(query["id"])
    return sorted(queries, key=lambda query: int(query["slot"]))


async def _consult(
    query: _Query, pool: ExpertPool, *, rho: float, u: float, max_queries: int
) -> Consultation:
    name = query["name"] or ""
    facts: dict[str, Any] = {
        "slot": query["slot"],
        "expert": name,
        "query": _query_text(query["args"]),
        "rho": rho,
        "u": u,
    }
    expert = pool.get(name)
    if query["problem"] or expert is None:
        known = ", ".join(tool.name for tool in pool.tools)
        reply = query["problem"] or f"There is no such expert. You can ask: {known}."
        return Consultation(**facts, reply=reply, status=ConsultationStatus.INVALID, error=reply)
    if query["slot"] >= max_queries:
        return Consultation(**facts, reply=NOT_SENT, status=ConsultationStatus.OVER_LIMIT)
    if u >= rho:
        return Consultation(**facts, reply=UNAVAILABLE, status=ConsultationStatus.WITHHELD)
    started = time.perf_counter()
    reply, status, failure = await _ask(expert.tool, query["args"], expert.timeout_s)
    return Consultation(
        **facts,
        reply=reply,
        status=status,
        error=failure,
        latency_s=time.perf_counter() - started,
    )


async def _ask(
    tool: BaseTool, arguments: dict[str, Any] | str, timeout_s: float
) -> tuple[str, ConsultationStatus, str | None]:
    from pydantic import ValidationError

    try:
        async with asyncio.timeout(timeout_s):
            reply = await tool.ainvoke(arguments)
    except TimeoutError:
        return UNAVAILABLE, ConsultationStatus.TIMEOUT, f"No reply within {timeout_s:g} s."
    except ValidationError:
        names = ", ".join(tool.args)
        reason = f"{tool.name} takes these arguments: {names}."
        return reason, ConsultationStatus.INVALID, reason
    except Exception as error:  # whatever a tool raises is a message to the policy and a record
        return UNAVAILABLE, ConsultationStatus.FAILED, f"{type(error).__name__}: {error}"
    text = reply if isinstance(reply, str) else json.dumps(reply, default=str, ensure_ascii=False)
    return text, ConsultationStatus.ACCEPTED, None


def _query_text(arguments: dict[str, Any] | str) -> str:
    if isinstance(arguments, str):
        return arguments
    query = arguments.get("query")
    if len(arguments) == 1 and isinstance(query, str):
        return query
    return json.dumps(arguments, ensure_ascii=False, default=str)
