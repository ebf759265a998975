"""Progress of long work on stderr: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from eapo_agents.progress import IS_MAIN

console = Console(stderr=True, highlight=False, quiet=not IS_MAIN)
EVERY_S = 5.0
"""Seconds between two lines when stderr is not a terminal."""


@dataclass(slots=True)
class _Bar:
    """A bar of Rich's."""

    progress: Progress
    task: TaskID

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        self.progress.update(self.task, completed=done, total=total, note=note)

    def step(self, note: str = "") -> None:
        self.progress.update(self.task, advance=1, note=note)


@dataclass(slots=True)
class _Lines:
    """A line every few seconds, for pipes and files: what is done, the rate, what is left."""

    what: str
    total: int | None
    done: int = 0
    first: int | None = None
    """The count at the start. What an earlier call did says nothing about this one's speed."""
    started: float = field(default_factory=time.monotonic)
    printed: float = field(default_factory=lambda: time.monotonic() - EVERY_S + 1.0)
    """When the last line was printed. The first one comes after a second."""

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self.first is None:
            self.first = done if done > 1 else 0
        self.done, self.total = done, total or self.total
        now = time.monotonic()
        if now - self.printed >= EVERY_S:
            self.printed = now
            console.print(self._line(now - self.started, note), markup=False, soft_wrap=True)

    def step(self, note: str = "") -> None:
        self.at(self.done + 1, note=note)

    def _line(self, seconds: float, note: str) -> str:
        of = "" if self.total is None else f" of {self.total}"
        line = f"{self.what}: {self.done}{of}, {seconds:.0f} s"
        new = self.done - (self.first or 0)
        if self.total is not None and new > 0:
            line += f", about {seconds / new * max(0, self.total - self.done):.0f} s left"
        return f"{line}{', ' if note else ''}{note}"


class TerminalProgress:
    """`eapo_agents.progress.Progress` on stderr."""

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[_Bar | _Lines]:
        """Show a bar, or lines when stderr is not a terminal."""
        if not console.is_terminal:
            lines = _Lines(what, total)
            yield lines
            spent = time.monotonic() - lines.started
            console.print(f"{what.strip()}: done in {spent:.1f} s", markup=False)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=console) as progress:
            yield _Bar(progress, progress.add_task(what, total=total, note=""))

    def say(self, text: str) -> None:
        """Print a line."""
        console.print(text, markup=False, soft_wrap=True, style="dim" if text[:1] == " " else None)

    def warn(self, text: str) -> None:
        """Print a line in yellow."""
        console.print(text, markup=False, soft_wrap=True, style="yellow")

    def status(self, text: str) -> AbstractContextManager[None]:
        """Show what is happening while the block runs."""
        return _status(text)


@contextmanager
def _status(text: str) -> Iterator[None]:
    with console.status(text):
        yield


TERMINAL = TerminalProgress()
