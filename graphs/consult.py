"""The EAPO graph: `policy -> consult (K in parallel) -> policy -> ... -> end`.

Every call that the policy writes becomes a separate `Send` to the consult node, so the replies of a
turn are in flight together. LangGraph returns them in the order of the calls, whatever order they
finish in. The pool handles timeouts and failures, since a branch that raises would end the whole
run, and one that LangGraph's error handler finishes comes a superstep after its siblings, when the
policy has already continued. Only a spent budget ends the run. A person who is asked interrupts it.

With `stream_mode="custom"`, each query streams when it is asked (`ASKING`), what the expert writes
(`WRITING`, in a context with `watched`) and its outcome (`REPLIED`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Send

from eapo_agents.errors import BudgetError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.consulting import (
    ASKING,
    REPLIED,
    UNAVAILABLE,
    WRITING,
    Query,
    artifact_of,
    particulars,
    query_text,
)
from eapo_agents.experts.consulting import consult as ask
from eapo_agents.experts.listening import listening
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget, coin
from eapo_agents.types import Role
from graphs.builders import Parts
from graphs.policy_node import BUDGET, bound, make_policy_node
from graphs.state import AgentState, OurGraph, RolloutContext
from graphs.tool_node import Call, ToolNode, make_tool_node, next_calls

Graph = CompiledStateGraph[AgentState, RolloutContext, AgentState, AgentState]


class ConsultNode(Protocol):
    """The shape of node that LangGraph takes."""

    def __call__(
        self, state: Call, runtime: Runtime[RolloutContext]
    ) -> Awaitable[dict[str, object]]: ...


def build_consult_graph(
    policy: RecordedChatModel,
    pool: ExpertPool,
    *,
    acceptance: AcceptanceSchedule,
    turns: TurnBudget,
    max_queries: int = 3,
    tools: Sequence[BaseTool] = (),
    checkpointer: BaseCheckpointSaver[str] | None = None,
) -> Graph:
    """Return the consult graph over a policy and a pool.

    Args:
        acceptance: global step -> rho.
        turns: global step -> T.
        max_queries: K, the most queries that one turn may send.
        tools: ordinary tools, which rollouts without experts have too.
    """
    named = {tool.name for tool in tools}

    def route(state: AgentState) -> list[Send] | str:
        # kept with the call: whoever resumes the run may give another context, and must not send
        # what waits for a decision
        review = state.get("review", False)
        calls: list[Call] = [{**call, "review": review} for call in next_calls(state, tools)]
        sends = [Send("tools" if call["name"] in named else "consult", call) for call in calls]
        return sends or END

    graph = OurGraph(Role.CONSULT)
    use = make_tool_node(tools)
    node = make_policy_node(
        bound(policy, [*pool.tools, *tools]),
        lambda context: turns.turns(context.global_step),
        bound(policy, tools),
        keeps_tools=bool(tools),
    )
    graph.add_node("policy", node)
    consult = _make_consult_node(pool, acceptance, max_queries, use)
    graph.add_node("consult", consult, input_schema=Call)
    graph.add_node("tools", use, input_schema=Call)
    graph.add_edge(START, "policy")
    graph.add_conditional_edges("policy", route, ["consult", "tools", END])
    graph.add_edge("consult", "policy")
    graph.add_edge("tools", "policy")
    return graph.compile(checkpointer=checkpointer, name="consult")


def _make_consult_node(
    pool: ExpertPool, acceptance: AcceptanceSchedule, max_queries: int, use: ToolNode
) -> ConsultNode:
    """Return the node that takes one query to its end.

    Args:
        use: answers a call to an expert that is not offered, in a rollout without experts.
    """

    async def consult(state: Call, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context = runtime.context or RolloutContext()
        if context.solo:
            return await use(state)
        site = CallSite(
            problem_id=context.problem_id,
            global_step=context.global_step,
            rollout=context.rollout,
            turn=state["turn"],
            slot=state["slot"],
        )
        rho, u = _drawn(acceptance, context, site)
        asking = {"slot": site.slot, "expert": state["name"], "query": query_text(state["args"])}
        runtime.stream_writer({"event": ASKING, **asking})

        def tell(text: str) -> None:
            runtime.stream_writer({"event": WRITING, "slot": site.slot, "text": text})

        try:
            with listening(tell if context.watched else None):
                consultation, answer = await ask(
                    pool,
                    Query(
                        name=state["name"] or "",
                        arguments=state["args"],
                        site=site,
                        rho=rho,
                        u=u,
                        problem=state["problem"],
                        over_limit=state["rank"] >= max_queries,
                        review=state.get("review", False),
                    ),
                )
        except BudgetError as error:
            # as a message, so that the turn's other queries still end; the policy node then raises
            return {"messages": [_budget_message(state, error)]}
        artifact = artifact_of(consultation)
        runtime.stream_writer({"event": REPLIED, **artifact, **particulars(answer)})
        message = ToolMessage(
            content=consultation.reply,
            tool_call_id=state["id"],
            name=consultation.expert or None,
            artifact=artifact,
        )
        return {"messages": [message]}

    return consult


def _drawn(
    acceptance: AcceptanceSchedule, context: RolloutContext, site: CallSite
) -> tuple[float, float]:
    """Return a query's acceptance probability and its random number."""
    # an adaptive schedule's rho comes with the rollout: it depends on the group's solo rollouts
    rho = acceptance.rho(context.global_step) if context.rho is None else context.rho
    # one coin per turn or rollout: all its queries draw the number of its first query
    turn = 0 if acceptance.per == "rollout" else site.turn
    slot = site.slot if acceptance.per == "reply" else 0
    return rho, coin(context.seed, site.problem_id, site.global_step, site.rollout, turn, slot)


def build(policy: RecordedChatModel, parts: Parts) -> Graph:
    """Build the graph `consult` of a recipe."""
    return build_consult_graph(
        policy,
        parts.pool,
        acceptance=parts.acceptance,
        turns=parts.turns,
        max_queries=parts.max_queries,
        tools=parts.tools,
    )


def _budget_message(query: Call, error: BudgetError) -> ToolMessage:
    artifact = {BUDGET: str(error)}
    return ToolMessage(content=UNAVAILABLE, tool_call_id=query["id"], artifact=artifact)
