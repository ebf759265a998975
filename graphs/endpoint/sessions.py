"""Sessions of the endpoint: what one client's agent does on one problem, as one trajectory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from eapo_agents.experts.consulting import Consulting
from eapo_agents.policy.engine import Engine, RolloutKey
from eapo_agents.policy.recording import Recorder, digests, leave, said_until
from eapo_agents.rewards import Reward
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Role, Sampling, StopReason, Trajectory
from graphs.endpoint.requests import RequestError
from graphs.ratings import PERSON, opening
from graphs.rollout import failed, group_key, score_trajectory
from graphs.turns import turns_of

GRAPH = "endpoint"
"""Name of the graph of such traces: nobody knows what the client's agent looks like."""
STEP = 1
"""Training step whose schedules apply, as in a collection."""


@dataclass(slots=True, kw_only=True, eq=False)
class Session:
    """A session in progress."""

    id: str
    problem: Problem
    rollout: int
    recorder: Recorder
    who: Consulting
    began: float = field(default_factory=time.monotonic)
    touched: float = field(default_factory=time.monotonic)
    num_busy: int = 0
    """Requests that are being answered."""
    said: dict[str, Sequence[BaseMessage]] = field(default_factory=dict)
    """Digest of a conversation as the client has it -> what its last message stands for."""
    messages: list[BaseMessage] = field(default_factory=list)
    """All that was said in it by the policy and its experts."""

    def in_our_words(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Return a conversation with what the policy really said, and was told by experts, in
        place of what the client saw of it."""
        found: list[BaseMessage] = []
        for message, digest in zip(messages, digests(messages, ())[1:], strict=True):
            found += self.said.get(digest, [message]) if message.type == "ai" else [message]
        return found

    def keep(
        self, messages: Sequence[BaseMessage], shown: AIMessage, ours: Sequence[BaseMessage]
    ) -> str:
        """Keep what was said after a conversation; return the digest of what the client has
        now."""
        digest = said_until(digests(messages, ())[-1], shown)
        # of equal answers the first: their tokens are equal words
        self.said.setdefault(digest, list(ours))
        self.messages += ours
        return digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A session that is in the store."""

    session: str
    group: str
    rollout: int
    turns: int
    reward: float | None
    correct: bool | None
    error: str | None


@dataclass(kw_only=True)
class Sessions:
    """The sessions of one endpoint. All of it runs in one event loop."""

    store: TraceStore
    run_id: str
    reward: Reward
    problems: Sequence[Problem]
    """Of the recipe's task: an answer to one of them can be scored."""
    seed: int
    engine: Engine
    sampling: Sampling
    """The recipe's, for a session in which nothing was sampled to its end."""
    idle_s: float
    """A session that nobody has asked anything for so long has ended."""
    on_ended: Callable[[Ended], None] = lambda ended: None
    open: dict[str, Session] = field(default_factory=dict)
    ended: dict[str, Ended] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._by_id = {problem.id: problem for problem in self.problems}
        self._by_question = {problem.question.strip(): problem for problem in self.problems}
        self._owners: dict[str, str] = {}
        self._rollouts = {
            group: max(there) for group, there in self.store.have(self.run_id).items()
        }

    def find(
        self, messages: Sequence[BaseMessage], name: str | None, problem_id: str | None
    ) -> Session:
        """Return the session of a request: that of its header, or the one whose conversation it
        continues, or a new one.

        Raises:
            RequestError: the session has ended, or there is no such problem.
        """
        if name is None:
            for digest in reversed(digests(messages, ())):
                owner = self._owners.get(digest)
                if owner is not None and owner in self.open:
                    return self.open[owner]
        elif name in self.ended:
            raise RequestError(
                f"The session '{name}' has ended, and is in the store: use another name.",
                status=409,
            )
        elif name in self.open:
            return self.open[name]
        return self._begin(messages, name or uuid4().hex[:16], problem_id)

    def _begin(self, messages: Sequence[BaseMessage], name: str, problem_id: str | None) -> Session:
        problem = self._problem(messages, problem_id)
        group = group_key(problem, STEP)
        rollout = self._rollouts.get(group, -1) + 1
        self._rollouts[group] = rollout
        key = RolloutKey(seed=self.seed, problem_id=problem.id, step=STEP, rollout=rollout, turn=0)
        known = problem if problem.id in self._by_id else None
        session = Session(
            id=name,
            problem=problem,
            rollout=rollout,
            recorder=Recorder(key, self.engine.policy_version.base),
            who=Consulting(
                seed=self.seed,
                problem_id=problem.id,
                problem=known,
                global_step=STEP,
                rollout=rollout,
            ),
        )
        self.open[name] = session
        return session

    def _problem(self, messages: Sequence[BaseMessage], problem_id: str | None) -> Problem:
        if problem_id is not None:
            if problem_id not in self._by_id:
                raise RequestError(
                    f"The recipe's task has no problem '{problem_id}' in its training split."
                )
            return self._by_id[problem_id]
        asked = [str(m.text) for m in messages if isinstance(m, HumanMessage)]
        if not asked:
            raise RequestError("A session begins with a message of the user.")
        known = self._by_question.get(asked[0].strip())
        if known is not None:
            return known
        name = f"{GRAPH}/{opening(messages)}"
        return Problem(id=name, question=asked[0], answer="", grader=PERSON)

    def said(self, session: Session, digest: str) -> None:
        """Note that whoever goes on after this conversation goes on in this session."""
        self._owners[digest] = session.id

    async def end(self, name: str, given: Mapping[str, Any] | None = None) -> Ended:
        """Put a session into the store.

        Args:
            given: `reward`, `correct` and `answer`, each if there is one. Without a reward, the
                task's own, where the problem is the task's.

        Raises:
            RequestError: there is no such session, it is being answered, or it has ended.
        """
        if name in self.ended:
            raise RequestError(f"The session '{name}' has ended already.", status=409)
        session = self.open.get(name)
        if session is None:
            raise RequestError(f"There is no session '{name}'.", status=404)
        if session.num_busy or session.recorder.num_sampling:
            raise RequestError(f"The session '{name}' is being answered: wait.", status=409)
        if not session.recorder.records and session.recorder.fault is None:
            raise RequestError(f"The policy has said nothing in the session '{name}'.", status=409)
        del self.open[name]
        group = group_key(session.problem, STEP)
        try:
            trajectory = await self._trajectory(session, given or {})
            self.store.append(trajectory, run_id=self.run_id, group_key=group)
        except BaseException:
            self.open[name] = session  # it may end another time
            raise
        leave(session.recorder)
        for digest in session.said:
            self._owners.pop(digest, None)
        ended = Ended(
            session=name,
            group=group,
            rollout=session.rollout,
            turns=len(trajectory.turns),
            reward=trajectory.reward,
            correct=trajectory.correct,
            error=trajectory.error,
        )
        self.ended[name] = ended
        self.on_ended(ended)
        return ended

    async def _trajectory(self, session: Session, given: Mapping[str, Any]) -> Trajectory:
        records = session.recorder.in_order()
        first = records[0] if records else None
        fault = session.recorder.fault or (
            str(session.who.failure) if session.who.failure else None
        )
        facts: dict[str, Any] = {
            "problem": session.problem,
            "graph": GRAPH,
            "role": Role.OWN,
            "seed": self.seed,
            "rollout": session.rollout,
            "global_step": STEP,
            "policy": first.policy if first else self.engine.policy_version,
            "sampling": first.sampling if first else self.sampling,
        }
        duration_s = session.touched - session.began
        if fault is not None:
            return failed(facts, fault, duration_s)
        said = [message for message in session.messages if isinstance(message, AIMessage)]
        answer = given.get("answer") or (str(said[-1].text) if said else "") or None
        unscored = Trajectory(
            **facts,
            turns=turns_of(session.messages, records, asked=session.who),
            stop_reason=StopReason.ANSWERED if answer else StopReason.EMPTY,
            answer=answer,
            reward=None,
            correct=None,
            error=None,
            duration_s=duration_s,
        )
        reward, correct = given.get("reward"), given.get("correct")
        if reward is not None:
            correct = reward > 0.5 if correct is None else correct
        elif session.problem.id in self._by_id:
            return await score_trajectory(unscored, self.reward)
        return replace(unscored, reward=reward, correct=correct)

    async def end_idle(self) -> None:
        """End the sessions that nobody goes on with."""
        now = time.monotonic()
        await self._end_all(
            [s for s in self.open.values() if not s.num_busy and now - s.touched > self.idle_s]
        )

    async def end_all(self) -> None:
        """End every session, as the endpoint ends."""
        await self._end_all(list(self.open.values()))

    async def _end_all(self, sessions: Sequence[Session]) -> None:
        for session in sessions:
            if session.num_busy or session.recorder.num_sampling:
                session.num_busy = session.recorder.num_sampling = 0
                session.recorder.fail("The endpoint was stopped while the policy was answering.")
            if session.recorder.records or session.recorder.fault:
                await self.end(session.id)
            else:
                leave(session.recorder)
                self.open.pop(session.id, None)
