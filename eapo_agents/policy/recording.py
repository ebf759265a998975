"""Keeps the token records of one run of any graph, and names its random numbers.

The record of every completion also rides on its `AIMessage`, but a graph may drop messages, rewrite
them, or call the policy inside a sub-agent whose messages nobody sees. What is recorded here is
what was sampled, whatever became of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

from eapo_agents.policy.engine import RolloutKey


@dataclass(slots=True)
class Recorder:
    """The completions of one run, in the order in which they ended."""

    key: RolloutKey
    """Of the run's first completion."""
    records: list[Mapping[str, Any]] = field(default_factory=list)
    _begun: int = 0

    def next_key(self) -> RolloutKey:
        """Names the next completion, for a graph that does not name its own."""
        key = replace(self.key, turn=self.key.turn + self._begun)
        self._begun += 1
        return key


_current: ContextVar[Recorder | None] = ContextVar("eapo_recorder", default=None)


@contextmanager
def recording(key: RolloutKey) -> Iterator[Recorder]:
    """Records every completion of a policy of ours that is sampled within this block, in the tasks
    and threads that it starts too."""
    recorder = Recorder(key)
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def current_recorder() -> Recorder | None:
    """The recorder of the run that this code is part of."""
    return _current.get()
