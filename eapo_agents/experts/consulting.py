"""One query, from its coin to its outcome; and what one rollout asked through tools.

The consult graph and the tools of `ExpertPool.tools` ask in the same way, by `consult`. A rollout
says who it is by `consulting`. Tools that are called within that block draw their coins from the
rollout's names, and their consultations are kept there. So nothing depends on which node calls a
tool, or on what becomes of the messages.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from typing import Protocol

from eapo_agents.errors import EapoError, UsageError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.expert import Answer
from eapo_agents.experts.review import REJECT, Action, decide, refused_because
from eapo_agents.schedules import AcceptanceSchedule, coin
from eapo_agents.types import Consultation, ConsultationStatus, Problem

UNAVAILABLE = "The expert is unavailable. Go on alone."
"""What the policy reads after a withheld reply, a failure or a timeout. It is the same text for
all three, so that the policy cannot learn to tell the coin from a failure. Trained policies have
read these words: other words would change their prompts."""
NOT_SENT = "Not sent: too many queries in one turn."
ASKING, WRITING, REPLIED = "asking", "writing", "replied"
"""Events of the stream `custom`: a query is asked, its expert writes, its outcome."""


class Askable(Protocol):
    """What `consult` needs of a pool."""

    def refusal(self, name: str, arguments: Mapping[str, object] | str) -> str | None:
        """Return why a call cannot be sent, as a sentence for the policy; None if it can."""
        ...

    async def ask(self, name: str, arguments: Mapping[str, object], site: CallSite) -> Answer:
        """Ask one expert, or several."""
        ...

    def asks_person(self, name: str) -> bool:
        """Return whether a person is behind a name."""
        ...

    async def record(
        self, name: str, status: ConsultationStatus, site: CallSite, error: str | None = None
    ) -> None:
        """Enter a query that was not sent into the ledger."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A query that is to be asked, and the coin that was drawn for it."""

    name: str
    arguments: Mapping[str, object] | str
    site: CallSite
    rho: float
    u: float
    problem: str | None = None
    """Why it cannot be sent; None if it can."""
    over_limit: bool = False
    """Whether it is beyond the K that one turn may send."""
    review: bool = False
    """A person approves, edits or refuses it before it is sent."""


async def consult(pool: Askable, query: Query) -> tuple[Consultation, Answer | None]:
    """Return the outcome of a query, and the expert's answer if it was sent.

    The order of the checks decides what is paid for: a malformed query, one past K and one that
    the coin withholds never reach the expert. Nor does one that a person refuses; one that a person
    edits is the query that was sent.

    Raises:
        BudgetError: the budget is spent.
    """
    asked = Consultation(
        slot=query.site.slot,
        expert=query.name,
        query=query_text(query.arguments),
        reply=UNAVAILABLE,
        status=ConsultationStatus.WITHHELD,
        rho=query.rho,
        u=query.u,
    )
    refusal = query.problem or pool.refusal(query.name, query.arguments)
    if refusal or isinstance(query.arguments, str):
        invalid = ConsultationStatus.INVALID
        asked = replace(asked, reply=refusal or NOT_SENT, status=invalid, error=refusal)
    elif query.over_limit:
        asked = replace(asked, reply=NOT_SENT, status=ConsultationStatus.OVER_LIMIT)
    elif query.u < query.rho:
        name, arguments, refused = _reviewed(pool, query.name, query.arguments, query)
        asked = replace(asked, expert=name, query=query_text(arguments), error=refused)
        if refused is None:
            return await _sent(pool, asked, arguments, query.site)
        await pool.record(name, asked.status, query.site, refused)
        return asked, None
    await pool.record(query.name, asked.status, query.site)
    return asked, None


async def _sent(
    pool: Askable, asked: Consultation, arguments: Mapping[str, object], site: CallSite
) -> tuple[Consultation, Answer]:
    """Ask the expert."""
    answer = await pool.ask(asked.expert, arguments, site)
    outcome = replace(
        asked,
        reply=answer.text if answer.accepted else UNAVAILABLE,
        status=answer.status,
        error=answer.error,
        latency_s=answer.latency_s,
        tokens=answer.usage.prompt_tokens + answer.usage.completion_tokens,
        cost_usd=answer.cost_usd or 0.0,
    )
    if (who := _current.get()) is not None:
        who.last_sent = outcome
    return outcome, answer


def _reviewed(
    pool: Askable, name: str, arguments: Mapping[str, object], query: Query
) -> tuple[str, Mapping[str, object], str | None]:
    """Return the call as a person lets it go, and why it was refused."""
    if not query.review or pool.asks_person(name):
        return name, arguments, None
    action = Action(
        name=name,
        arguments=arguments,
        description=f"The policy wants to ask '{name}': {query_text(arguments)}",
    )
    decision = decide(action, lambda edited: pool.refusal(edited.name, edited.arguments))
    if decision.edited is not None:
        return decision.edited.name, decision.edited.arguments, None
    refused = refused_because(decision.message) if decision.type == REJECT else None
    return name, arguments, refused


def query_text(arguments: Mapping[str, object] | str) -> str:
    """Return a call's arguments as text: just the query if there is nothing else."""
    if isinstance(arguments, str):
        return arguments
    query = arguments.get("query")
    if len(arguments) == 1 and isinstance(query, str):
        return query
    return json.dumps(arguments, ensure_ascii=False, default=str)


def artifact_of(consultation: Consultation) -> dict[str, object]:
    """Return a consultation as the plain data that rides on a tool message."""
    return {**asdict(consultation), "status": consultation.status.value}


def particulars(answer: Answer | None) -> dict[str, object]:
    """Return what a screen shows beside the consultation."""
    if answer is None:
        return {}
    return {
        "cost_usd": answer.cost_usd,
        "attempts": answer.attempts,
        "cached": answer.cached,
        "answered_by": answer.answered_by,
    }


@dataclass(slots=True, kw_only=True)
class Consulting:
    """Who asks through tools, and what was asked so far. Threads may share one."""

    seed: int = 0
    problem_id: str = ""
    problem: Problem | None = None
    """For experts that see it; None where the question is nobody's problem, as in a chat."""
    global_step: int = 0
    rollout: int = 0
    rho: float | None = None
    """Takes the place of the tools' schedule."""
    watched: bool = False
    """Somebody watches: experts that can, stream what they write."""
    review: bool = False
    """A person approves, edits or refuses each call before it is sent."""
    last_sent: Consultation | None = None
    """The outcome of the last query that reached an expert."""
    failure: EapoError | None = None
    """What must end the run. A node may have caught it, with whatever else tools raise."""
    _of_calls: dict[str, dict[int, Consultation]] = field(default_factory=dict)
    _others: dict[str, list[Consultation]] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def coin(self, acceptance: AcceptanceSchedule, turn: str, slot: str) -> tuple[float, float]:
        """Return (rho, u) of a query.

        Args:
            turn: id of the turn that wrote it.
            slot: which of the turn's queries it is.
        """
        rho = acceptance.rho(self.global_step) if self.rho is None else self.rho
        where: tuple[int | str, int | str] = (turn, slot)
        if acceptance.per == "turn":
            where = (turn, 0)
        elif acceptance.per == "rollout":
            where = (0, 0)
        return rho, coin(self.seed, self.problem_id, self.global_step, self.rollout, *where)

    def next_of_kind(self, kind: str) -> int:
        """Count queries that are equal, and that no call of the policy's tells apart."""
        with self._lock:
            self._counts[kind] += 1
            return self._counts[kind] - 1

    def keep(self, turn: str, consultation: Consultation, *, of_call: bool) -> None:
        """Keep a consultation of a turn. A call that is asked again, as a retried node does, has
        its last outcome: that is what the policy reads."""
        with self._lock:
            if of_call:
                self._of_calls.setdefault(turn, {})[consultation.slot] = consultation
            else:
                self._others.setdefault(turn, []).append(consultation)

    def by_turn(self, turns: Sequence[str]) -> dict[str, list[Consultation]]:
        """Return turn id -> its consultations, in an order that does not depend on arrival. Queries
        that no turn wrote are the latest turn's; those before the first turn are the first one's.
        """
        found: dict[str, list[Consultation]] = {}
        with self._lock:
            for turn, of_slot in self._of_calls.items():
                found[turn] = [consultation for _, consultation in sorted(of_slot.items())]
            for turn, others in self._others.items():
                there = found.setdefault(turn if turn in turns else turns[0], [])
                for consultation in sorted(others, key=lambda c: (c.expert, c.query, c.u)):
                    slot = there[-1].slot + 1 if there else 0
                    there.append(replace(consultation, slot=slot))
        return found


_current: ContextVar[Consulting | None] = ContextVar("eapo_consulting", default=None)
_under_way = 0
_count = threading.Lock()


@contextmanager
def consulting(who: Consulting) -> Iterator[Consulting]:
    """Ask in the name of a rollout within this block, in the tasks and threads that it starts
    too."""
    global _under_way
    token = _current.set(who)
    with _count:
        _under_way += 1
    try:
        yield who
    finally:
        with _count:
            _under_way -= 1
        _current.reset(token)


def current_consulting() -> Consulting | None:
    """Return the rollout that this code is part of; None outside of any.

    Raises:
        UsageError: rollouts are under way, and it is not known which of them this is.
    """
    who = _current.get()
    if who is None and _under_way:
        raise UsageError(
            "An expert was asked while rollouts run, and it is not known by which: run the tool in "
            "the node itself, in its tasks, or in a thread with the node's context "
            "(contextvars.copy_context().run)."
        )
    return who
