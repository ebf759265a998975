"""Graphs that the paper compares with, for evaluation: neither is trained.

`workflow`: a fixed pipeline. Every expert is asked the question, whether the policy needs it or
not, and the policy answers with their replies in sight.

`leap`: parallel paths that learn from each other (Luo et al. 2025, "Learning from Peers in
Reasoning Models"). Each drafts, sums its draft up, and answers with the others' summaries in sight;
the answer that most paths reach is the graph's.
"""

from __future__ import annotations

import asyncio
import operator
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.runtime import Runtime
from langgraph.types import Send
from typing_extensions import TypedDict

from eapo_agents.errors import UsageError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recorded_model import RecordedChatModel
from graphs.builders import AnyGraph, Parts
from graphs.state import RolloutContext

WITH_REPLIES = "Experts were asked and said:\n{replies}\nNow solve the problem."
SUMMARISE = "Sum up in one or two sentences what you have found so far."
WITH_SUMMARIES = "Others who work on the same problem found:\n{summaries}\nNow solve the problem."


class _WorkflowState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]


def build_workflow_graph(policy: RecordedChatModel, pool: ExpertPool) -> AnyGraph:
    """Experts first, all that are offered, then the policy."""
    experts_asked = [expert for expert in pool.experts if expert.offered]

    async def experts(state: _WorkflowState, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context = runtime.context or RolloutContext()
        question = state["messages"][-1].text
        answers = await asyncio.gather(
            *(
                pool.ask(expert.name, {"query": question}, _site(context, slot))
                for slot, expert in enumerate(experts_asked)
            )
        )
        replies = "\n".join(
            f"[{expert.name}] {answer.text}"
            for expert, answer in zip(experts_asked, answers, strict=True)
            if answer.accepted
        )
        said = WITH_REPLIES.format(replies=replies or "nothing")
        return {"messages": [HumanMessage(f"{question}\n{said}", id=state["messages"][-1].id)]}

    async def answer(state: _WorkflowState, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context = runtime.context or RolloutContext()
        return {"messages": [await policy.ainvoke(state["messages"], rollout_key=_key(context, 0))]}

    graph = StateGraph(_WorkflowState, context_schema=RolloutContext)
    graph.add_node("experts", experts)
    graph.add_node("answer", answer)
    graph.add_edge(START, "experts")
    graph.add_edge("experts", "answer")
    graph.add_edge("answer", END)
    return graph.compile(name="workflow")


def build_workflow(policy: RecordedChatModel, parts: Parts) -> AnyGraph:
    """Build the graph `workflow` of a recipe."""
    return build_workflow_graph(policy, parts.pool)


class _LeapState(TypedDict):
    messages: Annotated[list[AnyMessage], add_messages]
    drafts: Annotated[list[tuple[int, list[AnyMessage]]], operator.add]
    answers: Annotated[list[tuple[int, AIMessage]], operator.add]


class _Path(TypedDict):
    path: int
    messages: list[AnyMessage]


def build_leap_graph(policy: RecordedChatModel, *, paths: int) -> AnyGraph:
    """Drafts side by side, their summaries exchanged, answers side by side, the majority's."""

    async def draft(state: _Path, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context, path = runtime.context or RolloutContext(), state["path"]
        drafted = await policy.ainvoke(state["messages"], rollout_key=_key(context, 3 * path))
        so_far = [*state["messages"], drafted, HumanMessage(SUMMARISE)]
        summary = await policy.ainvoke(so_far, rollout_key=_key(context, 3 * path + 1))
        return {"drafts": [(path, [*so_far, summary])]}

    async def answer(state: _Path, runtime: Runtime[RolloutContext]) -> dict[str, object]:
        context, path = runtime.context or RolloutContext(), state["path"]
        key = _key(context, 3 * path + 2)
        return {"answers": [(path, await policy.ainvoke(state["messages"], rollout_key=key))]}

    def exchange(state: _LeapState) -> list[Send]:
        drafts = sorted(state["drafts"], key=lambda pair: pair[0])
        sends = []
        for path, messages in drafts:
            summaries = "\n".join(f"- {m[-1].text}" for other, m in drafts if other != path)
            said = HumanMessage(WITH_SUMMARIES.format(summaries=summaries or "- nothing"))
            sends.append(Send("answer", {"path": path, "messages": [*messages, said]}))
        return sends

    def decide(state: _LeapState) -> dict[str, object]:
        answers = [message for _, message in sorted(state["answers"], key=lambda pair: pair[0])]
        return {"messages": [_majority(answers)]}

    graph = StateGraph(_LeapState, context_schema=RolloutContext)
    graph.add_node("draft", draft, input_schema=_Path)
    graph.add_node("exchange", lambda state: {})
    graph.add_node("answer", answer, input_schema=_Path)
    graph.add_node("decide", decide)
    graph.add_conditional_edges(
        START,
        lambda state: [
            Send("draft", {"path": path, "messages": state["messages"]}) for path in range(paths)
        ],
        ["draft"],
    )
    graph.add_edge("draft", "exchange")
    graph.add_conditional_edges("exchange", exchange, ["answer"])
    graph.add_edge("answer", "decide")
    graph.add_edge("decide", END)
    return graph.compile(name="leap")


def build_leap(policy: RecordedChatModel, parts: Parts, paths: object = 3) -> AnyGraph:
    """Build the graph `leap` of a recipe, whose `graph_options` may give `paths`.

    Raises:
        UsageError: `paths` is not a number from 1.
    """
    if not isinstance(paths, int) or isinstance(paths, bool) or paths < 1:
        raise UsageError(f"graph_options.paths must be an integer from 1, got {paths!r}.")
    return build_leap_graph(policy, paths=paths)


def _majority(answers: Sequence[AIMessage]) -> AIMessage:
    """The first of the answers whose last line most paths share."""
    lines = [_last_line(message) for message in answers]
    counts = Counter(line for line in lines if line)
    if not counts:
        return answers[0]
    return answers[lines.index(counts.most_common(1)[0][0])]


def _last_line(message: AIMessage) -> str:
    """What is compared: from `Answer:` on, where there is one, since paths word their way to it
    differently."""
    line = (message.text.splitlines() or [""])[-1]
    return " ".join(line[max(0, line.rfind("Answer:")) :].split())


def _key(context: RolloutContext, turn: int) -> RolloutKey:
    return RolloutKey(
        seed=context.seed,
        problem_id=context.problem_id,
        step=context.global_step,
        rollout=context.rollout,
        turn=turn,
    )


def _site(context: RolloutContext, slot: int) -> CallSite:
    return CallSite(
        problem_id=context.problem_id,
        global_step=context.global_step,
        rollout=context.rollout,
        turn=0,
        slot=slot,
    )
