"""How long work tells how far it is: by callback, so that a library call can be watched by a
terminal, a notebook or nobody."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

IS_MAIN = os.environ.get("RANK", "0") == "0"
"""Whether this is the first, or the only, process that `accelerate launch` started. It alone
tells."""


class Bar(Protocol):
    """One piece of work."""

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """Tell that `done` units are done."""
        ...

    def step(self, note: str = "") -> None:
        """Tell that one more unit is done."""
        ...


class Progress(Protocol):
    """Whoever is told."""

    def bar(self, what: str, total: int | None) -> AbstractContextManager[Bar]:
        """Begin a piece of work of `total` units; None where that is not known."""
        ...

    def say(self, text: str) -> None:
        """Tell a fact in one line."""
        ...

    def warn(self, text: str) -> None:
        """Tell a fact that wants attention."""
        ...

    def status(self, text: str) -> AbstractContextManager[None]:
        """Tell what is going on while the block runs."""
        ...


class _Silent:
    """Tells nobody."""

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
"""Tells nobody: the default of every function in `eapo_agents.runs`."""
