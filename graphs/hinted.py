"""Graphs in which an expert speaks unasked, for training: `hinted` and `critique`.

`hinted`: an expert is asked the question first, and the policy answers with its reply in sight. So
help comes where the policy would not ask for it: pushed hints, prefixes of solutions.

    question -> [the expert's reply] -> the policy's answer

`critique`: the policy answers, an expert reads the answer, and the policy answers again.

    question -> the policy's try -> [the expert's critique] -> the policy's answer

The coin decides about the reply as it does in the consult graph. Without an accepted reply, and in
solo rollouts, both are the solo graph: the tool-free prompt and one turn.
"""

from __future__ import annotations

from typing import Literal

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.graph import END, START
from langgraph.runtime import Runtime

from eapo_agents.errors import UsageError
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import ConsultationStatus, Role, StopReason
from graphs.builders import Parts
from graphs.consult import Graph
from graphs.policy_node import bound, make_policy_node
from graphs.state import AgentState, OurGraph, RolloutContext

ShownAs = Literal["consultation", "prompt"]
WITH_HINT = "{question}\n\nHint: {reply}"
FOR_CRITIQUE = (
    "A student was asked:\n{question}\n\nThe student answered:\n{answer}\n\nSay in a few sentences "
    "what is wrong in this answer and what to do instead. Do not solve the problem."
)
WITH_CRITIQUE = "An expert read your answer and said:\n{reply}\n\nAnswer the question again."


def build_hinted_graph(
    policy: RecordedChatModel,
    pool: ExpertPool,
    *,
    acceptance: AcceptanceSchedule,
    expert: str | None = None,
    shown_as: ShownAs = "consultation",
) -> Graph:
    """Return the graph whose first prompt holds a reply.

    Args:
        acceptance: global step -> rho, the probability of a hint.
        expert: who is asked; the first expert by default.
        shown_as: `consultation`: as if the policy had asked, which a warm start has shown it.
            `prompt`: behind the question, as a line "Hint: ...".

    Raises:
        UsageError: there is no such expert, or it cannot be asked by a query.
    """
    tool = _asked(pool, acceptance, expert, "hinted")

    async def hint(state: AgentState, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        question = state["messages"][-1]
        call = _call(tool, question.text, state["messages"])
        reply = await _reply(tool, call, runtime.context)
        if reply is None:
            return {}
        if shown_as == "prompt":
            text = WITH_HINT.format(question=question.text, reply=reply.text)
            return {"messages": [HumanMessage(text, id=question.id)]}
        return {"messages": [AIMessage("", tool_calls=[call]), reply]}

    def route(state: AgentState) -> Literal["helped", "policy"]:
        return "helped" if isinstance(state["messages"][-1], ToolMessage) else "policy"

    graph = OurGraph(Role.CONSULT)
    graph.add_node("hint", hint)
    graph.add_node("policy", make_policy_node(policy, _one_turn))
    graph.add_node("helped", make_policy_node(bound(policy, [tool]), _one_turn))
    graph.add_edge(START, "hint")
    graph.add_conditional_edges("hint", route, ["helped", "policy"])
    graph.add_edge("policy", END)
    graph.add_edge("helped", END)
    return graph.compile(name="hinted")


def build_critique_graph(
    policy: RecordedChatModel,
    pool: ExpertPool,
    *,
    acceptance: AcceptanceSchedule,
    expert: str | None = None,
) -> Graph:
    """Return the graph in which an expert criticises the policy's answer, which then answers again.

    Args:
        acceptance: global step -> rho, the probability of a critique.
        expert: who is asked; the first expert by default.

    Raises:
        UsageError: there is no such expert, or it cannot be asked by a query.
    """
    tool = _asked(pool, acceptance, expert, "critique")

    async def critique(state: AgentState, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        *_, question, answer = state["messages"]
        query = FOR_CRITIQUE.format(question=question.text, answer=answer.text)
        reply = await _reply(tool, _call(tool, query, state["messages"]), runtime.context)
        if reply is None:
            return {}
        return {"messages": [HumanMessage(WITH_CRITIQUE.format(reply=reply.text))]}

    def answered(state: AgentState) -> str:
        return "critique" if state.get("stop_reason") == StopReason.ANSWERED else END

    def route(state: AgentState) -> str:
        return "retry" if isinstance(state["messages"][-1], HumanMessage) else END

    graph = OurGraph(Role.CONSULT)
    graph.add_node("policy", make_policy_node(policy, _one_turn))
    graph.add_node("critique", critique)
    graph.add_node("retry", make_policy_node(policy, _one_turn))
    graph.add_edge(START, "policy")
    graph.add_conditional_edges("policy", answered, ["critique", END])
    graph.add_conditional_edges("critique", route, ["retry", END])
    graph.add_edge("retry", END)
    return graph.compile(name="critique")


def build_hinted(
    policy: RecordedChatModel,
    parts: Parts,
    expert: object = None,
    shown_as: object = "consultation",
) -> Graph:
    """Build the graph `hinted` of a recipe, whose `graph_options` may give `expert`, `shown_as`.

    Raises:
        UsageError: an option does not fit.
    """
    if shown_as != "consultation" and shown_as != "prompt":
        raise UsageError(
            f"graph_options.shown_as must be 'consultation' or 'prompt', got {shown_as!r}."
        )
    return build_hinted_graph(
        policy,
        parts.pool,
        acceptance=parts.acceptance,
        expert=_name(expert),
        shown_as="prompt" if shown_as == "prompt" else "consultation",
    )


def build_critique(policy: RecordedChatModel, parts: Parts, expert: object = None) -> Graph:
    """Build the graph `critique` of a recipe, whose `graph_options` may give `expert`.

    Raises:
        UsageError: the option does not fit.
    """
    return build_critique_graph(
        policy, parts.pool, acceptance=parts.acceptance, expert=_name(expert)
    )


def _name(expert: object) -> str | None:
    if expert is not None and not isinstance(expert, str):
        raise UsageError(f"graph_options.expert must be an expert's name, got {expert!r}.")
    return expert


def _asked(
    pool: ExpertPool, acceptance: AcceptanceSchedule, expert: str | None, graph: str
) -> BaseTool:
    """Return the tool that is asked."""
    tools = pool.tools_under(acceptance)
    found = next((tool for tool in tools if expert in (None, tool.name)), None)
    if found is None:
        known = ", ".join(tool.name for tool in tools) or "none"
        raise UsageError(
            f"The graph '{graph}' asks "
            f"{'an expert' if expert is None else repr(expert)}, and the experts that may be asked "
            f"are: {known}. Name one of consult.experts in graph_options.expert."
        )
    if list(found.args) != ["query"]:
        raise UsageError(
            f"The graph '{graph}' asks by one argument, query, and the expert '{found.name}' takes "
            f"{', '.join(found.args) or 'none'}: name another in graph_options.expert."
        )
    return found


def _one_turn(context: RolloutContext) -> int:
    return 1


def _call(tool: BaseTool, query: str, before: list[AnyMessage]) -> ToolCall:
    """Return a call that nobody wrote; its id is unlike those of the policy's calls."""
    call_id = f"unasked_{len(before)}"
    return ToolCall(name=tool.name, args={"query": query}, id=call_id, type="tool_call")


async def _reply(
    tool: BaseTool, call: ToolCall, context: RolloutContext | None
) -> ToolMessage | None:
    """Return an expert's reply; None where it was withheld, it failed, or the rollout is solo."""
    if context is not None and context.solo:
        return None
    message = await tool.ainvoke(call)
    assert isinstance(message, ToolMessage)
    artifact = message.artifact if isinstance(message.artifact, dict) else {}
    accepted = artifact.get("status") == ConsultationStatus.ACCEPTED
    return message if accepted else None
