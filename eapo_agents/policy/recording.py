"""The record of a sampled turn, and the recorder that keeps the records of one run of any graph.

A record rides on the turn's `AIMessage` as plain data, so that checkpointers and JSON keep it. But
a graph may drop messages, rewrite them, or call the policy inside a sub-agent whose messages nobody
sees. The recorder has what was sampled, whatever became of the messages.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, astuple, dataclass, field, replace
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.places import Place, current_place, in_order, named
from eapo_agents.schedules import counter_key
from eapo_agents.types import Billed, PolicyVersion, Sampling

_PLACE = "eapo"
"""Key of the record in `AIMessage.additional_kwargs`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """One sampled turn. Records form a tree: several may have the same parent."""

    id: str
    parent: str | None
    """Id of the record whose tokens come before `context_ids`; None starts a new row."""
    context_ids: tuple[int, ...]
    """Tokens that the engine saw after the parent's; the whole prompt where `parent` is None."""
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    text: str
    """The completion decoded; special tokens are left out, but for those of calls and thoughts."""
    calls: tuple[tuple[str, Mapping[str, object]], ...]
    """Name and arguments of each call in the text; one that cannot be read has no name."""
    finish_reason: str
    policy: PolicyVersion
    sampling: Sampling
    history: str
    """Digest of the conversation up to and including this turn, by `said_until`. Messages that
    give another digest now were rewritten, and the tokens no longer stand for them."""
    billed: Billed | None = None
    """Of a turn that an API model wrote, which has no tokens."""

    @property
    def num_sampled(self) -> int | None:
        """See `Turn.num_sampled`."""
        return len(self.completion_ids) if self.billed is None else self.billed.completion_tokens

    @property
    def cost_usd(self) -> float | None:
        """See `Turn.cost_usd`."""
        return 0.0 if self.billed is None else self.billed.cost_usd

    def write(self, message: AIMessage) -> None:
        """Put this record on the turn's message, as plain data."""
        message.additional_kwargs[_PLACE] = {
            "id": self.id,
            "parent": self.parent,
            "context_ids": list(self.context_ids),
            "completion_ids": list(self.completion_ids),
            "logprobs": None if self.logprobs is None else list(self.logprobs),
            "text": self.text,
            "calls": [[name, dict(arguments)] for name, arguments in self.calls],
            "finish_reason": self.finish_reason,
            "policy": asdict(self.policy),
            "sampling": asdict(self.sampling),
            "history": self.history,
            "billed": None if self.billed is None else asdict(self.billed),
        }

    @classmethod
    def read(cls, message: BaseMessage) -> TurnRecord | None:
        """Return the record on a message. None: it has none, or one of an older version of ours,
        whose message counts as text."""
        data = message.additional_kwargs.get(_PLACE) if message.type == "ai" else None
        if not isinstance(data, Mapping) or "history" not in data or "calls" not in data:
            return None
        logprobs, billed = data["logprobs"], data.get("billed")
        return cls(
            **{
                **data,
                "context_ids": tuple(data["context_ids"]),
                "completion_ids": tuple(data["completion_ids"]),
                "calls": tuple((name, arguments) for name, arguments in data["calls"]),
                "logprobs": None if logprobs is None else tuple(logprobs),
                "policy": PolicyVersion(**data["policy"]),
                "sampling": Sampling(**data["sampling"]),
                "billed": None if billed is None else Billed(**billed),
            }
        )


ROLLOUT = "eapo_rollout"
"""Key of a rollout's name in the metadata of LangChain's configuration."""


@dataclass(slots=True, eq=False)
class Recorder:
    """The completions of one run."""

    key: RolloutKey
    """Of the run's first completion."""
    base: str | None = None
    """Fingerprint of the base weights that the run is about; None: of any."""
    records: list[TurnRecord] = field(default_factory=list)
    """In the order in which they ended."""
    fault: str | None = None
    """Why the records are not the whole run; a run that has one is not a trace."""
    name: str = field(default_factory=lambda: uuid4().hex)
    """Tells the rollouts that are in progress apart; no trace has it."""
    num_begun: int = 0
    num_sampling: int = 0
    """Completions that are not sampled to their end yet."""
    _asked: Counter[str] = field(default_factory=Counter)
    _places: dict[str, tuple[int, Place | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, why: str) -> None:
        """Note that something is missing."""
        self.fault = self.fault or why

    def begin(
        self, key: RolloutKey | None, said: str, turn: int, sampling: Sampling
    ) -> tuple[RolloutKey, str]:
        """Return the key and the id of a completion that begins now. Whoever begins one calls
        `ended`.

        They are functions of the place in the graph, of the conversation, and of how many were
        asked for there before; not of the time at which branches come to it. So the same seed
        gives the same ones.

        Args:
            key: the graph's own name of the completion, if it has one.
            said: digest of the conversation so far.
            turn: the policy's turns in it.
        """
        place = current_place()
        asked = json.dumps([key and astuple(key), said, named(place), astuple(sampling)])
        with self._lock:
            sample = self._asked[asked]
            self._asked[asked] += 1
            number = self.num_begun
            self.num_begun += 1
            self.num_sampling += 1
        if key is None:
            branch = 1 + counter_key("branch", asked, sample) % (1 << 62)
            key = replace(self.key, turn=self.key.turn + turn, branch=branch)
        record_id = turn_id(key, sample)
        self._places[record_id] = (number, place)
        return key, record_id

    def ended(self) -> None:
        """Note that a completion is sampled, or will not be."""
        with self._lock:
            self.num_sampling -= 1

    def in_order(self) -> list[TurnRecord]:
        """Return the records, parents before children, in an order that is the same for the same
        seed: see `places.in_order`."""

        def place_of(record: TurnRecord) -> Place | None:
            return self._places[record.id][1]

        begun = sorted(self.records, key=lambda record: self._places[record.id][0])
        found = in_order(begun, place_of, lambda record: record.id)
        number = {record.id: index for index, record in enumerate(found)}
        if any(number.get(r.parent or "", -1) > number[r.id] for r in found):
            return begun  # a graph handed a turn over in a way that LangGraph does not know of
        return found


_OUTSIDE: Recorder = Recorder(RolloutKey(seed=0, problem_id="", step=0, rollout=0, turn=0))
"""Stands for code that is known to be in no run."""
_current: ContextVar[Recorder | None] = ContextVar("eapo_recorder", default=None)
_in_progress: dict[str, Recorder] = {}


@contextmanager
def recording(key: RolloutKey, base: str | None = None) -> Iterator[Recorder]:
    """Record every completion of a policy of ours that is sampled within this block, in the tasks
    and threads that it starts too.

    Args:
        base: see `Recorder`.
    """
    recorder = Recorder(key, base)
    around = current_recorder() or _OUTSIDE
    _current.set(recorder)
    _in_progress[recorder.name] = recorder
    try:
        yield recorder
    finally:
        del _in_progress[recorder.name]
        _current.set(around)


@contextmanager
def recording_on(recorder: Recorder) -> Iterator[None]:
    """Record what is sampled within this block by a recorder that outlives it: `leave` ends it."""
    _in_progress[recorder.name] = recorder
    token = _current.set(recorder)
    try:
        yield
    finally:
        _current.reset(token)


def leave(recorder: Recorder) -> None:
    """End what `recording_on` began."""
    _in_progress.pop(recorder.name, None)


def current_recorder() -> Recorder | None:
    """Return the recorder of the run that this code is part of, by its context."""
    found = _current.get()
    return found if found is not None and found.name in _in_progress else None


def recorder_of(
    messages: Sequence[BaseMessage], metadata: Mapping[str, object] | None, base: str
) -> Recorder | None:
    """Return the recorder of the run that asks for a completion.

    A thread that a node starts by itself has no context. Then the metadata that came with the call
    tell, or the messages, or there is one run alone in progress. Else all that may be it are
    failed: none of them is a trace any more.
    """
    found = current_recorder()
    if found is not None or _current.get() is not None:
        return found
    able = [r for r in list(_in_progress.values()) if r.base in (None, base)]
    named_in = {str((metadata or {}).get(ROLLOUT))}
    named_in |= {str(message.id).partition("/")[0] for message in messages if message.id}
    sampled = {record.id for record in records_on(messages)}
    own = [r for r in able if r.name in named_in or sampled & {one.id for one in r.records}]
    own = own or able
    if len(own) == 1:
        return own[0]
    for recorder in own:
        recorder.fail(
            "The policy was asked from a thread without a context, and several rollouts were in "
            "progress: pass the node's config to the call, or start the thread with "
            "contextvars.copy_context().run."
        )
    return None


def turn_id(key: RolloutKey, sample: int | str) -> str:
    """Return a turn's id: a function of its rollout key, and of which sample under it this is (a
    count within a run, the history outside of one)."""
    text = json.dumps([*astuple(key), sample])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()


def records_on(messages: Sequence[BaseMessage]) -> list[TurnRecord]:
    """Return the records that ride on messages, in the messages' order."""
    return [record for message in messages if (record := TurnRecord.read(message)) is not None]


def continued_turns(
    messages: Sequence[BaseMessage],
    said: Sequence[str],
    base: str,
    recorded: Sequence[TurnRecord] = (),
) -> tuple[list[TurnRecord], int]:
    """Return the turns whose tokens a conversation continues, the oldest first, and how many
    messages they stand for.

    None (an empty list, 0) where that cannot be determined: what was recorded does not fit what the
    messages say, another model wrote it, or the tokens of an earlier turn are not at hand.

    Args:
        said: the conversation's digests, by `digests`.
        base: fingerprint of the policy's base weights: another model's tokens are other words.
        recorded: further records of this run, for turns whose messages were rebuilt as text.
    """
    at_hand = {record.id: record for record in recorded}
    line: list[TurnRecord] = []
    covered = 0
    for index, message in enumerate(messages):
        record = TurnRecord.read(message)
        if record is not None and record.policy.base == base and record.history == said[index + 1]:
            at_hand[record.id] = record
            line, covered = [record], index + 1
    while line and (parent := line[0].parent) is not None:
        earlier = at_hand.pop(parent, None)
        if earlier is None:
            return [], 0
        line.insert(0, earlier)
    return line, covered


def digests(messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the digest of the offered tools, then for each message that of everything up to and
    including it."""
    tools_text = json.dumps(list(tools), sort_keys=True)
    found = [hashlib.blake2b(tools_text.encode()).hexdigest()[:32]]
    for message in messages:
        found.append(said_until(found[-1], message))
    return found


def said_until(before: str, message: BaseMessage) -> str:
    """Return the digest of a conversation that one more message was added to."""
    # LangChain may turn a sampled turn's text into blocks, which say the same
    content = message.text if isinstance(message, AIMessage) else message.content
    said: list[object] = [before, message.type, content]
    if isinstance(message, AIMessage):
        said += [[call["name"], call["args"]] for call in message.tool_calls]
        said += [call["args"] for call in message.invalid_tool_calls]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
