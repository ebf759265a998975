"""A conversation with the agent: a thread of the consult graph that is kept, can be continued, and
can become a training trace.

Everything that a screen shows is an event, the same for the terminal, pipes and tests.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import Command, StateSnapshot

from eapo_agents.errors import UsageError
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.recording import records_on
from eapo_agents.types import StopReason, Trajectory
from graphs.consult import Graph
from graphs.events import Ended, Event, PersonAsked, event_of
from graphs.ratings import conversation_trajectory
from graphs.rollout import first_messages
from graphs.state import RolloutContext


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One thread. Its graph needs a checkpointer."""

    graph: Graph
    policy: PolicyChatModel
    thread_id: str
    system_prompt: str
    seed: int
    rho: float | None = None
    """Replaces the schedule's acceptance probability."""
    solo: bool = False
    """Whether the policy answers without experts."""
    _rollout: int = 0
    _fork: str | None = field(default=None)

    async def ask(self, question: str) -> AsyncIterator[Event]:
        """Ask a question. The events end with `PersonAsked` or `Ended`.

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
        """Ask the last question again, with other random numbers. What came before stays."""
        before, question = await self._before_last_question()
        self._rollout += 1
        self._fork = before
        try:
            async for event in self._run({"messages": question}):
                yield event
        finally:
            self._fork = None

    async def reply(self, replies: Mapping[str, str]) -> AsyncIterator[Event]:
        """Continue with people's replies, by the id of `PersonAsked`."""
        async for event in self._run(Command(resume=dict(replies))):
            yield event

    async def resume(self) -> AsyncIterator[Event]:
        """Continue a turn that was cut off by the end of the program."""
        async for event in self._run(None):
            yield event

    async def load(self) -> None:
        """Read the state that the thread's last run left."""
        kept: Mapping[str, object] = (await self.snapshot()).metadata or {}
        self._rollout = int(str(kept.get("rollout", 0)))

    async def snapshot(self) -> StateSnapshot:
        """Return the thread's state."""
        return await self.graph.aget_state(self._config())

    async def messages(self) -> list[AnyMessage]:
        """Return everything said so far."""
        return list((await self.snapshot()).values.get("messages", ()))

    async def waiting(self) -> list[PersonAsked]:
        """Return what people were asked and have not replied to yet."""
        return [
            PersonAsked(
                id=i.id,
                expert=str(i.value.get("expert", "")),
                query=str(i.value.get("query", "")),
            )
            for i in (await self.snapshot()).interrupts
        ]

    async def trajectory(self, reward: float | None) -> Trajectory:
        """Return the conversation as a trajectory, with the reward that a person gave, if any.

        Raises:
            TraceError: nothing has been said, or several policies spoke.
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
            event = event_of(str(mode), part)
            if event is not None:
                yield event
        waiting = await self.waiting()
        for asked in waiting:
            yield asked
        if not waiting:
            yield _ended(await self.snapshot(), time.perf_counter() - started)

    async def _before_last_question(self) -> tuple[str | None, list[AnyMessage]]:
        """Return the checkpoint before the last question, and the question."""
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


def _ended(snapshot: StateSnapshot, seconds: float) -> Ended:
    messages = snapshot.values["messages"]
    last = max(i for i, message in enumerate(messages) if isinstance(message, HumanMessage))
    spoken = [m for m in messages[last + 1 :] if isinstance(m, AIMessage)]
    return Ended(
        answer=str(spoken[-1].text) if spoken else "",
        stop_reason=str(snapshot.values.get("stop_reason") or StopReason.ERROR.value),
        turns=len(spoken),
        sampled_tokens=sum(len(record.completion_ids) for record in records_on(spoken)),
        seconds=seconds,
    )
