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

from langchain_core.messages import AIMessage, BaseMessage

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.types import PolicyVersion, Sampling

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
        }

    @classmethod
    def read(cls, message: BaseMessage) -> TurnRecord | None:
        """Return the record on a message. None: it has none, or one of an older version of ours,
        whose message counts as text."""
        data = message.additional_kwargs.get(_PLACE) if message.type == "ai" else None
        if not isinstance(data, Mapping) or "history" not in data or "calls" not in data:
            return None
        logprobs = data["logprobs"]
        return cls(
            **{
                **data,
                "context_ids": tuple(data["context_ids"]),
                "completion_ids": tuple(data["completion_ids"]),
                "calls": tuple((name, arguments) for name, arguments in data["calls"]),
                "logprobs": None if logprobs is None else tuple(logprobs),
                "policy": PolicyVersion(**data["policy"]),
                "sampling": Sampling(**data["sampling"]),
            }
        )


@dataclass(slots=True)
class Recorder:
    """The completions of one run, in the order in which they ended."""

    key: RolloutKey
    """Of the run's first completion."""
    records: list[TurnRecord] = field(default_factory=list)
    fault: str | None = None
    """Why the records are not the whole run; a run that has one is not a trace."""
    _begun: int = 0
    _named: Counter[RolloutKey] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, why: str) -> None:
        """Note that something is missing."""
        self.fault = self.fault or why

    def next_key(self) -> RolloutKey:
        """Name the next completion, for a graph that does not name its own."""
        with self._lock:
            key = replace(self.key, turn=self.key.turn + self._begun)
            self._begun += 1
        return key

    def next_id(self, key: RolloutKey) -> str:
        """Return the id of a turn that begins now: the same seed gives the same ids."""
        with self._lock:
            count = self._named[key]
            self._named[key] += 1
        return turn_id(key, count)


_current: ContextVar[Recorder | None] = ContextVar("eapo_recorder", default=None)


@contextmanager
def recording(key: RolloutKey) -> Iterator[Recorder]:
    """Record every completion of a policy of ours that is sampled within this block, in the tasks
    and threads that it starts too."""
    recorder = Recorder(key)
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def current_recorder() -> Recorder | None:
    """Return the recorder of the run that this code is part of."""
    return _current.get()


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
