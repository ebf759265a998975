"""What happens in a turn, as events: the same for the terminal, pipes and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessageChunk

from eapo_agents.experts.consulting import ASKING, REPLIED, WRITING
from eapo_agents.experts.review import Action
from eapo_agents.policy.formats import THOUGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Wrote:
    """A piece of the policy's text, as it is sampled."""

    text: str
    turn: str
    """Id of the turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """What the policy thought in a turn. It is known to be no answer only when the turn has
    ended."""

    text: str
    turn: str
    """Id of the turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A query is on its way to an expert, or to its coin."""

    slot: int
    expert: str
    query: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWrote:
    """A piece of an expert's reply, as it is written. `Replied` says whether the policy sees it."""

    slot: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replied:
    """The outcome of a query."""

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
    """None if the expert has no price."""
    error: str | None
    attempts: int = 0
    cached: bool = False
    answered_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAsked:
    """The graph waits for a person; `Conversation.reply` continues it."""

    id: str
    expert: str
    query: str
    actions: tuple[Action, ...] = ()
    """The calls that wait for a decision; none where a graph waits for something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The policy is done with the question."""

    answer: str
    stop_reason: str
    turns: int
    sampled_tokens: int | None
    """None where a service did not count them."""
    cost_usd: float | None
    """What an API model as policy was billed; None if that is not known."""
    seconds: float


Event = Wrote | Thought | Asking | ExpertWrote | Replied | PersonAsked | Ended


def events_of(mode: str, part: Any) -> list[Event]:
    """Return the events of a part of the graph's stream; none if a screen does not show it."""
    if mode == "messages":
        return _of_message(part[0])
    facts = dict(part)
    match facts.pop("event", None):
        case kind if kind == ASKING:
            return [Asking(**{**facts, "expert": facts["expert"] or "?"})]
        case kind if kind == WRITING:
            return [ExpertWrote(**facts)]
        case kind if kind == REPLIED:
            return [Replied(**{**facts, "expert": facts["expert"] or "?"})]
    return []


def _of_message(message: Any) -> list[Event]:
    """Return the events of a piece of a turn: its thought, which comes with the last piece, and its
    text."""
    if not isinstance(message, AIMessageChunk):
        return []
    turn, found = message.id or "", list[Event]()
    if thought := str(message.additional_kwargs.get(THOUGHT) or "").strip():
        found.append(Thought(text=thought, turn=turn))
    if message.content:
        found.append(Wrote(text=str(message.text), turn=turn))
    return found
