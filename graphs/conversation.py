"""A conversation with the agent: a thread of the consult graph that is kept, goes on, and can
become a training trace.

Everything that a screen shows comes as events, the same for the terminal, pipes and tests.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from eapo_agents.errors import TraceError, UsageError
from eapo_agents.policy.chat_model import RECORD, PolicyChatModel
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Problem, Sampling, StopReason, Trajectory
from graphs.consult import ASKING, REPLIED, WRITING, Graph
from graphs.rollout import first_messages, turns_of
from graphs.state import RolloutContext

PERSON = "person"
"""The grader of a conversation: somebody said what it is worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrote:
    """A piece of the policy's text, as it is sampled."""

    text: str
    turn: str
    """Tells the turns apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A query is on its way to an expert, or to its coin."""

    slot: int
    expert: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWrote:
    """A piece of an expert's reply, as it is written. Whether the policy sees it is told by
    `Replied`."""

    slot: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """What became of a query."""

    slot: int
    expert: str
    query: str
    reply: str
    status: str
    rho: float
    u: float
    latency_s: float
    tokens: int
    cost_usd: float | None
    """None where the expert has no price."""
    error: str | None
    attempts: int = 0
    cached: bool = False
    answered_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAsked:
    """The graph waits for a person; `Conversation.reply` goes on."""

    id: str
    expert: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The policy is done with the question."""

    answer: str
    stop_reason: str
    turns: int
    sampled_tokens: int
    seconds: float


Event = Wrote | Asking | ExpertWrote | Replied | PersonAsked | Ended


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One thread. Its graph needs a checkpointer."""

    graph: Graph
    policy: PolicyChatModel
    thread_id: str
    system_prompt: str
    seed: int
    rho: float | None = None
    """In place of the schedule's."""
    solo: bool = False
    """Without experts."""
    _rollout: int = 0
    _fork: str | None = field(default=None)

    async def ask(self, question: str) -> AsyncIterator[Event]:
        """Asks something; the events end with `PersonAsked` or `Ended`.

        Raises:
            BudgetError: the experts' budget is spent.
        """
        snapshot = await self.snapshot()
        given: list[AnyMessage] = [HumanMessage(question)]
        if not snapshot.values.get("messages"):
            given = first_messages(self.system_prompt, question)
        async for event in self._run({"messages": given}):
            yield event

    async def again(self) -> AsyncIterator[Event]:
        """Asks the last question anew, with other random numbers; what came before stays."""
        before, question = await self._before_last_question()
        self._rollout += 1
        self._fork = before
        try:
            async for event in self._run({"messages": question}):
                yield event
        finally:
            self._fork = None

    async def reply(self, replies: Mapping[str, str]) -> AsyncIterator[Event]:
        """Goes on with what people replied, by the id of `PersonAsked`."""
        async for event in self._run(Command(resume=dict(replies))):
            yield event

    async def go_on(self) -> AsyncIterator[Event]:
        """Goes on with a turn that was cut off by the end of the program."""
        async for event in self._run(None):
            yield event

    async def load(self) -> None:
        """Takes up what the thread's last run left."""
        kept: Any = (await self.snapshot()).metadata or {}
        self._rollout = int(kept.get("rollout", 0))

    async def snapshot(self) -> StateSnapshot:
        """The thread's present state."""
        return await self.graph.aget_state(self._config())

    async def messages(self) -> list[AnyMessage]:
        """Everything said so far."""
        return list((await self.snapshot()).values.get("messages", ()))

    async def waiting(self) -> list[PersonAsked]:
        """What people have been asked and have not replied to yet."""
        return [
            PersonAsked(
                id=i.id,
                expert=str(i.value.get("expert", "")),
                query=str(i.value.get("query", "")),
            )
            for i in (await self.snapshot()).interrupts
        ]

    async def trajectory(self, reward: float | None) -> Trajectory:
        """The conversation as a trajectory, with the reward that a person gave, if any.

        Raises:
            TraceError: nothing has been said, or by several policies.
        """
        values = (await self.snapshot()).values
        made = conversation_trajectory(
            values.get("messages", ()), self.thread_id, self.seed, reward
        )
        return replace(made, stop_reason=StopReason(values.get("stop_reason") or "error"))

    def _config(self) -> RunnableConfig:
        return {"configurable": {"thread_id": self.thread_id}}

    async def _run(self, given: Any) -> AsyncIterator[Event]:
        started = time.perf_counter()
        config = self._config()
        config["metadata"] = {"rollout": self._rollout}
        if self._fork is not None:
            config["configurable"]["checkpoint_id"] = self._fork
        context = RolloutContext(
            problem_id=f"chat/{self.thread_id}",
            seed=self.seed,
            rollout=self._rollout,
            rho=self.rho,
            watched=True,
            solo=self.solo,
        )
        stream = self.graph.astream(
            given,
            config,
            context=context,
            stream_mode=["messages", "custom"],
            durability="sync",
        )
        async for mode, part in stream:
            event = _event(str(mode), part)
            if event is not None:
                yield event
        waiting = await self.waiting()
        for asked in waiting:
            yield asked
        if not waiting:
            yield _ended(await self.snapshot(), time.perf_counter() - started)

    async def _before_last_question(self) -> tuple[str | None, list[AnyMessage]]:
        """The checkpoint before the last question, and what was said then."""
        messages = await self.messages()
        asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
        if not asked:
            raise UsageError("Nothing has been asked yet: ask something first.")
        last = asked[-1]
        question: list[AnyMessage] = [HumanMessage(str(messages[last].text))]
        if len(asked) == 1:
            question = first_messages(self.system_prompt, str(messages[last].text))
        async for snapshot in self.graph.aget_state_history(self._config()):
            said = snapshot.values.get("messages", ())
            if len(said) <= last and not (len(asked) == 1 and said):
                return snapshot.config["configurable"]["checkpoint_id"], question
        raise UsageError("The conversation's beginning is not kept: ask the question again.")


def conversation_trajectory(
    messages: Sequence[AnyMessage], thread_id: str, seed: int, reward: float | None
) -> Trajectory:
    """A conversation as one trajectory: what the user said is context, like experts' replies.

    Raises:
        TraceError: no policy of ours has said anything, or several have.
    """
    records = [
        message.additional_kwargs[RECORD]
        for message in messages
        if isinstance(message, AIMessage) and RECORD in message.additional_kwargs
    ]
    if not records:
        raise TraceError("The policy has said nothing in this conversation yet: ask it something.")
    sources = [(record["policy"], record["sampling"]) for record in records]
    if any(source != sources[0] for source in sources):
        raise TraceError(
            "A trace must come from one policy under one sampling, and this conversation was "
            "continued under another: start a new one."
        )
    questions = [str(m.text) for m in messages if isinstance(m, HumanMessage)]
    problem = Problem(
        id=f"chat/{opening(messages)}",
        question=questions[0],
        answer="",
        grader=PERSON,
        metadata={"thread": thread_id, "questions": questions},
    )
    last = messages[-1]
    return Trajectory(
        problem=problem,
        graph="chat",
        turns=turns_of(messages),
        stop_reason=StopReason.ANSWERED,
        answer=str(last.text) if isinstance(last, AIMessage) else None,
        reward=reward,
        # of several questions, no single answer can be said to be right
        correct=reward > 0.5 if reward is not None and len(questions) == 1 else None,
        error=None,
        policy=PolicyVersion(**records[0]["policy"]),
        sampling=Sampling(**records[0]["sampling"]),
        seed=seed,
        rollout=0,
        global_step=0,
    )


def opening(messages: Sequence[AnyMessage]) -> str:
    """Names how a conversation began: those that began alike are samples of one group."""
    first = next(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
    said = "\x1f".join(f"{m.type}:{m.text}" for m in messages[: first + 1])
    return hashlib.blake2b(said.encode(errors="surrogatepass"), digest_size=6).hexdigest()


def _event(mode: str, part: Any) -> Event | None:
    if mode == "messages":
        message = part[0]
        if isinstance(message, AIMessageChunk) and message.content:
            return Wrote(text=str(message.text), turn=message.id or "")
        return None
    facts = dict(part)
    match facts.pop("event", None):
        case kind if kind == ASKING:
            return Asking(**{**facts, "expert": facts["expert"] or "?"})
        case kind if kind == WRITING:
            return ExpertWrote(**facts)
        case kind if kind == REPLIED:
            return Replied(**{**facts, "expert": facts["expert"] or "?"})
    return None


def _ended(snapshot: StateSnapshot, seconds: float) -> Ended:
    messages = snapshot.values["messages"]
    last = max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
    spoken = [m for m in messages[last + 1 :] if isinstance(m, AIMessage)]
    return Ended(
        answer=str(spoken[-1].text) if spoken else "",
        stop_reason=str(snapshot.values.get("stop_reason") or StopReason.ERROR.value),
        turns=len(spoken),
        sampled_tokens=sum(len(m.additional_kwargs[RECORD]["completion_ids"]) for m in spoken),
        seconds=seconds,
    )


def keep_trajectory(
    store: TraceStore, trajectory: Trajectory, recipe: Mapping[str, Any]
) -> tuple[str, str, int, int]:
    """Puts a conversation into a store, as a further rollout of the group of those that began
    alike; returns (run, group, rollout, trajectories with a reward in the group).

    Raises:
        TraceError: the same conversation has been rated before.
        StoreError: the store holds a chat under other settings.
    """
    run_id = f"chat-{trajectory.policy.weights[:8]}"
    store.start_run(
        run_id,
        kind="chat",
        recipe=recipe,
        sampling=trajectory.sampling,
        policy=trajectory.policy,
    )
    group = trajectory.problem.id
    kept = [s.trajectory for s in store.trajectories(run_id) if s.group_key == group]
    rated = [t for t in kept if t.reward is not None]
    if trajectory.reward is not None and any(t.turns == trajectory.turns for t in rated):
        raise TraceError(
            "This conversation is rated already, and traces are never changed: ask something more, "
            "or /again for another answer."
        )
    rollout = max((t.rollout for t in kept), default=-1) + 1
    store.append(replace(trajectory, rollout=rollout), run_id=run_id, group_key=group)
    return run_id, group, rollout, len(rated) + (trajectory.reward is not None)
