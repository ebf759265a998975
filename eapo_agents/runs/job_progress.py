"""What a job of a study is doing, in a file that the study reads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eapo_agents.progress import SILENT, Bar

FILE = "progress.txt"
TRAINING = "Train (steps)"
_EVERY_S = 1.0


class JobProgress:
    """Writes one line to `progress.txt` while a piece of work runs; facts go to the job's output.

    Training has its own figures in `steps.jsonl`, which the study shows.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE

    @contextmanager
    def bar(self, what: str, total: int | None) -> Iterator[Bar]:
        """Keep how far the work is, about once a second."""
        if what == TRAINING:
            with SILENT.bar(what, total) as bar:
                yield bar
            return
        try:
            begun = _KeptBar(self._file, what.strip(), total)
            begun.at(0)
            yield begun
        finally:
            self._file.unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """Write a fact to the job's output."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    warn = say

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Keep what is happening."""
        with self.bar(text, None):
            yield


class _KeptBar:
    def __init__(self, file: Path, what: str, total: int | None) -> None:
        self._file, self._what, self._total = file, what, total
        self._done, self._written = 0, float("-inf")

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """Report that `done` units are done."""
        self._done, self._total = done, total or self._total
        if time.monotonic() - self._written < _EVERY_S:
            return
        self._written = time.monotonic()
        of = "" if self._total is None else f" of {self._total:,}"
        self._file.write_text(f"{self._what}: {done:,}{of}" if done or of else self._what)

    def step(self, note: str = "") -> None:
        """Report that one more unit is done."""
        self.at(self._done + 1)


def doing(folder: Path) -> str:
    """Return what a job is doing; empty while it trains, or has not begun."""
    try:
        return (folder / FILE).read_text()
    except OSError:
        return ""
