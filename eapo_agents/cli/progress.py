"""Progress of long work on stderr: a bar in a terminal, a line every few seconds elsewhere. With
`--quiet` nothing, and with `--events` a JSON object a line. Warnings are always told."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
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

from eapo_agents.progress import IS_MAIN, SILENT, Bar

console = Console(stderr=True, highlight=False, quiet=not IS_MAIN)
EVERY_S = 5.0
"""Seconds between two lines when stderr is not a terminal."""
SILENCE_S = 15.0
"""Seconds after which the last count is told again: a step of a large model can take minutes."""

_TELLING = 0.05
"""Share of this call's work that has to be done before the time left is told."""


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
    as_event: bool = False
    note: str = ""
    ended: threading.Event = field(default_factory=threading.Event)

    def tell_of_silence(self) -> None:
        """Until the end, tell the last count again where nothing new has been told for long; for a
        thread of its own."""
        while not self.ended.wait(1.0):
            now = time.monotonic()
            if now - self.printed >= SILENCE_S:
                self.printed = now
                self._tell(now - self.started, self.note)

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        if self.first is None:
            self.first = done if done > 1 else 0
        self.done, self.total, self.note = done, total or self.total, note
        now = time.monotonic()
        if now - self.printed >= EVERY_S:
            self.printed = now
            self._tell(now - self.started, note)

    def end(self) -> None:
        """Say that the work is done, and how long it took."""
        seconds = time.monotonic() - self.started
        if self.as_event:
            self._tell(seconds, "", ended=True)
        else:
            console.print(f"{self.what.strip()}: done in {seconds:.1f} s", markup=False)

    def step(self, note: str = "") -> None:
        self.at(self.done + 1, note=note)

    def _tell(self, seconds: float, note: str, *, ended: bool = False) -> None:
        left = None
        first = self.first or 0
        new = self.done - first
        # nothing follows from the first few: a whole batch ends at once, or the first is slow
        if self.total is not None and new > 0 and new >= _TELLING * (self.total - first):
            left = seconds / new * max(0, self.total - self.done)
        if self.as_event:
            event = {"event": "ended" if ended else "progress", "what": self.what.strip()}
            counts = {"done": self.done, "total": self.total, "seconds": round(seconds, 1)}
            _print_event(event | counts | {"left_s": left and round(left, 1), "note": note})
            return
        of = "" if self.total is None else f" of {self.total}"
        line = f"{self.what}: {self.done}{of}, {seconds:.0f} s"
        line += "" if left is None else f", about {left:.0f} s left"
        console.print(f"{line}{', ' if note else ''}{note}", markup=False, soft_wrap=True)


def _print_event(event: Mapping[str, object]) -> None:
    if IS_MAIN:
        print(json.dumps(event), file=sys.stderr, flush=True)


@dataclass(slots=True)
class TerminalProgress:
    """`eapo_agents.progress.Progress` on stderr."""

    quiet: bool = False
    """Say nothing but warnings."""
    events: bool = False
    """Say it as JSON objects, a line each."""

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Bar]:
        """Show a bar, or lines when stderr is not a terminal."""
        if self.quiet:
            with SILENT.bar(what, total) as silent:
                yield silent
            return
        if self.events or not console.is_terminal:
            lines = _Lines(what, total, as_event=self.events)
            threading.Thread(target=lines.tell_of_silence, daemon=True).start()
            try:
                yield lines
            finally:
                lines.ended.set()
            lines.end()
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
        if self.events:
            _print_event({"event": "said", "text": text.strip()})
        elif not self.quiet:
            console.print(
                text, markup=False, soft_wrap=True, style="dim" if text[:1] == " " else None
            )

    def warn(self, text: str) -> None:
        """Print a line in yellow."""
        if self.events:
            _print_event({"event": "warned", "text": text.strip()})
        else:
            console.print(text, markup=False, soft_wrap=True, style="yellow")

    def status(self, text: str) -> AbstractContextManager[None]:
        """Show what is happening while the block runs."""
        return nullcontext() if self.quiet or self.events else _status(text)


@contextmanager
def _status(text: str) -> Iterator[None]:
    with console.status(text):
        yield


TERMINAL = TerminalProgress()
