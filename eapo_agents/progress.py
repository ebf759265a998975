"""How long work reports its progress: by callback, so that a terminal, a notebook or nobody can
watch a library call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

IS_MAIN = os.environ.get("RANK", "0") == "0"
"""Whether this is the first, or the only, process that `accelerate launch` started. Only this one
reports."""


class Bar(Protocol):
    """One piece of work."""

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` units are done."""
        ...

    def step(self, note: str = "") -> None:
        """Report that one more unit is done."""
        ...


class Progress(Protocol):
    """The receiver of the reports."""

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Bar]:
        """Begin a piece of work of `total` units; None if that is not known."""
        ...

    def say(self, text: str) -> None:
        """Report a fact in one line."""
        ...

    def warn(self, text: str) -> None:
        """Report a fact that needs attention."""
        ...

    def status(self, text: str) -> AbstractContextManager[None]:
        """Report what is happening while the block runs."""
        ...


class _Silent:
    """Reports nothing."""

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        pass

    def step(self, note: str = "") -> None:
        pass

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Bar]:
        yield self

    def say(self, text: str) -> None:
        pass

    warn = say

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        yield


SILENT: Progress = _Silent()
"""Reports nothing: the default of every function in `eapo_agents.runs`."""
