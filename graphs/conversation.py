"""A conversation with the agent: a thread of its graph that is kept, can be continued, and can
become a training trace.

Everything that a screen shows is an event, the same for the terminal, pipes and tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphRecursionError
from langgraph.types import Command, Interrupt, StateSnapshot

from eapo_agents.errors import UsageError
from eapo_agents.experts.consulting import Consulting, consulting, query_text
from eapo_agents.experts.review import RESPOND, Decision, actions_in
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.policy.recording import records_on
from eapo_agents.types import Problem, Role, StopReason, Trajectory, total_known
from graphs.events import Ended, Event, PersonAsked, events_of
from graphs.ratings import PERSON, conversation_trajectory
from graphs.rollout import answer_in, first_messages
from graphs.running import RECURSION_LIMIT, config_of, context_of
from graphs.state import AnyGraph, RolloutContext, role_of
from graphs.turns import messages_in

GRAPH = "the graph"
"""Who asks a person, where no expert does."""


@dataclass(slots=True, kw_only=True)
class Conversation:
    """One thread. Its graph needs a checkpointer."""

    graph: AnyGraph
    policy: RecordedChatModel
    thread_id: str
    system_prompt: str
    seed: int
    rho: float | None = None
    """Replaces the schedule's acceptance probability."""
    solo: bool = False
    """Whether the policy answers without experts."""
    review: bool = False
    """Whether a person approves, edits or refuses each call before it is sent."""
    solo_graph: AnyGraph | None = None
    """What runs then, where the graph is a user's."""
    inputs: Callable[[Problem], Any] | None = None
    answer_of: Callable[[Any], str | None] | None = None
    """See `Rollouts`."""
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
        async for event in self._run(self._input(question, given)):
            yield event

    async def again(self) -> AsyncIterator[Event]:
        """Ask the last question again, with other random numbers. What came before stays."""
        before, question = await self._before_last_question()
        self._rollout += 1
        self._fork = before
        try:
            async for event in self._run(self._input(str(question[-1].text), question)):
                yield event
        finally:
            self._fork = None

    async def reply(self, replies: Mapping[str, str | Sequence[Decision]]) -> AsyncIterator[Event]:
        """Continue with people's replies, by the id of `PersonAsked`: a decision for each of its
        actions, or a text."""
        has_actions = {one.id for one in await self.waiting() if one.actions}
        given = {
            name: _resume_value(said, of_actions=name in has_actions)
            for name, said in replies.items()
        }
        async for event in self._run(Command(resume=given)):
            yield event

    async def resume(self) -> AsyncIterator[Event]:
        """Continue a turn that was cut off by the end of the program."""
        async for event in self._run(None):
            yield event

    async def undo(self) -> str:
        """Take back the last question and everything since; return the question.

        Raises:
            UsageError: nothing has been asked.
        """
        messages = await self.messages()
        asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
        if not asked:
            raise UsageError("Nothing has been asked yet: there is nothing to take back.")
        question = str(messages[asked[-1]].text)
        if len(asked) == 1:
            checkpointer = self.graph.checkpointer
            assert isinstance(checkpointer, BaseCheckpointSaver)
            await checkpointer.adelete_thread(self.thread_id)
            return question
        async for snapshot in self.graph.aget_state_history(self._config()):
            source = (snapshot.metadata or {}).get("source")
            # the checkpoint of an input still waits for that input
            if source != "input" and len(messages_in(snapshot.values)) <= asked[-1]:
                config = snapshot.config
                config["metadata"] = {"rollout": self._rollout}
                await self.graph.aupdate_state(config, None)
                return question
        raise UsageError("The conversation's beginning is not kept: /new starts another thread.")

    async def load(self) -> None:
        """Read the state that the thread's last run left."""
        snapshot = await self.snapshot()
        kept: Mapping[str, object] = snapshot.metadata or {}
        self._rollout = int(str(kept.get("rollout", 0)))
        if snapshot.interrupts and kept.get("review"):
            self.review = True  # a call that waits for a decision is not sent without it
        messages = messages_in(snapshot.values)
        if messages and isinstance(messages[0], SystemMessage):
            self.system_prompt = str(messages[0].text)

    async def snapshot(self) -> StateSnapshot:
        """Return the thread's state."""
        return await self.graph.aget_state(self._config())

    async def messages(self) -> list[BaseMessage]:
        """Return everything said so far."""
        return messages_in((await self.snapshot()).values)

    async def waiting(self) -> list[PersonAsked]:
        """Return what people were asked and have not replied to yet."""
        return [_asked(found) for found in (await self.snapshot()).interrupts]

    async def trajectory(self, reward: float | None) -> Trajectory:
        """Return the conversation as a trajectory, with the reward that a person gave, if any.

        Raises:
            TraceError: nothing has been said, or several policies spoke.
        """
        values = (await self.snapshot()).values
        made = conversation_trajectory(messages_in(values), self.thread_id, self.seed, reward)
        if self._is_own:
            return replace(made, graph=self.graph.name, role=Role.OWN)
        return replace(made, stop_reason=StopReason(values.get("stop_reason") or "error"))

    @property
    def _is_own(self) -> bool:
        """Whether the graph is a user's."""
        return role_of(self.graph) is Role.OWN

    def _input(self, question: str, messages: list[AnyMessage]) -> Any:
        """Return the graph's input for a question."""
        if self.inputs is None:
            return {"messages": messages}
        asked = Problem(id=self._name, question=question, answer="", grader=PERSON)
        try:
            return self.inputs(asked)
        except Exception as error:  # a user's function may raise anything
            raise UsageError(
                f"inputs cannot make the graph's input of a question alone, without metadata: "
                f"{type(error).__name__}: {error}"
            ) from error

    @property
    def _name(self) -> str:
        return f"chat/{self.thread_id}"

    def _config(self) -> RunnableConfig:
        return config_of(self.graph, self.thread_id)

    async def _run(self, given: Any) -> AsyncIterator[Event]:
        started = time.perf_counter()
        config = self._config()
        config["metadata"] = {"rollout": self._rollout, "review": self.review}
        if self._fork is not None:
            config["configurable"]["checkpoint_id"] = self._fork
        context = RolloutContext(
            problem_id=self._name,
            seed=self.seed,
            rollout=self._rollout,
            rho=self.rho,
            watched=True,
            review=self.review,
            solo=self.solo,
        )
        alone = self.solo_graph if self.solo else None
        graph = alone or self.graph
        stream = graph.astream(
            given,
            config,
            context=context_of(graph, context),
            stream_mode=["messages", "custom"],
            durability="sync",
        )
        if self._is_own:
            stream = _with_tools(stream, context)
        async for mode, part in stream:
            for event in events_of(str(mode), part):
                yield event
        waiting = await self.waiting()
        for asked in waiting:
            yield asked
        if not waiting:
            yield self._ended(await self.snapshot(), time.perf_counter() - started)

    def _ended(self, snapshot: StateSnapshot, seconds: float) -> Ended:
        messages = messages_in(snapshot.values)
        asked = [i for i, message in enumerate(messages) if isinstance(message, HumanMessage)]
        spoken = [m for m in messages[max(asked, default=-1) + 1 :] if isinstance(m, AIMessage)]
        answer = str(spoken[-1].text) if spoken else ""
        reason = snapshot.values.get("stop_reason") or StopReason.ERROR.value
        if self._is_own:
            answer = self._answer_in(snapshot.values)
            reason = (StopReason.ANSWERED if answer else StopReason.EMPTY).value
        records = records_on(spoken)
        return Ended(
            answer=answer,
            stop_reason=str(reason),
            turns=len(spoken),
            sampled_tokens=total_known(record.num_sampled for record in records),
            cost_usd=total_known(record.cost_usd for record in records),
            seconds=seconds,
        )

    def _answer_in(self, state: Any) -> str:
        if self.answer_of is None:
            return answer_in(state) or ""
        try:
            return str(self.answer_of(state) or "")
        except Exception as error:  # a user's function may raise anything
            raise UsageError(
                f"answer_of cannot read the graph's final state: {type(error).__name__}: {error}"
            ) from error

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


async def _with_tools(stream: AsyncIterator[Any], context: RolloutContext) -> AsyncIterator[Any]:
    """Run a user's graph so that its tools know who asks.

    Raises:
        UsageError: the graph has taken as many steps as it may.
    """
    who = Consulting(
        seed=context.seed,
        problem_id=context.problem_id,
        rollout=context.rollout,
        rho=context.rho,
        watched=context.watched,
        review=context.review,
    )
    with consulting(who):
        try:
            async for part in stream:
                yield part
        except GraphRecursionError as error:
            raise UsageError(
                f"The graph took {RECURSION_LIMIT} steps without an answer: let it end sooner."
            ) from error
    if who.failure is not None:
        raise who.failure


def _asked(found: Interrupt) -> PersonAsked:
    """Return what a person is asked: about calls, or what a user's graph says."""
    if actions := actions_in(found.value):
        first = actions[0]
        query = query_text(first.arguments)
        return PersonAsked(id=found.id, expert=first.name, query=query, actions=actions)
    said = found.value if isinstance(found.value, str) else json.dumps(found.value, default=str)
    return PersonAsked(id=found.id, expert=GRAPH, query=said)


def _resume_value(said: str | Sequence[Decision], *, of_actions: bool) -> Any:
    """Return what the graph continues with: decisions, or what a person replied to a user's graph,
    an object where it is written as JSON."""
    if not isinstance(said, str):
        return {"decisions": [decision.form() for decision in said]}
    if of_actions:
        return {"decisions": [Decision(type=RESPOND, message=said).form()]}
    try:
        found = json.loads(said)
    except ValueError:
        return said
    return found if isinstance(found, dict | list) else said
