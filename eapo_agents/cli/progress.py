"""Progress of long work on stderr, and the history of training steps that it leaves in a file."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

IS_MAIN = os.environ.get("RANK", "0") == "0"
"""Whether this is the first, or the only, process that `accelerate launch` started: it alone
talks."""
console = Console(stderr=True, highlight=False, quiet=not IS_MAIN)
STEPS = "steps.jsonl"
EVALS = "evals.jsonl"


@dataclass(slots=True)
class Bar:
    """A line of progress."""

    progress: Progress
    task: TaskID

    def at(self, done: int, total: int | None = None, note: str = "") -> None:
        """Moves to `done`."""
        self.progress.update(self.task, completed=done, total=total, note=note)

    def step(self, note: str = "") -> None:
        """Moves on by one."""
        self.progress.update(self.task, advance=1, note=note)


@contextmanager
def progress_bar(what: str, total: int | None) -> Iterator[Bar]:
    """A progress bar on stderr; where that is no terminal, one line at the end."""
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Bar(progress, progress.add_task(what, total=total, note=""))
    if not console.is_terminal:
        console.print(f"{what}: {time.perf_counter() - started:.1f} s", markup=False)


def append_line(file: Path, facts: dict[str, Any]) -> None:
    """Adds a line to a history; one that was cut off before stays a line of its own."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            whole = lines.read(1) == b"\n"
            lines.write(b"" if whole else b"\n")
        lines.write(json.dumps(facts).encode() + b"\n")


@contextmanager
def training_bar(total: int | None, folder: Path) -> Iterator[Any]:
    """Shows each step's reward and consultations, and keeps them in the folder's steps.jsonl. A
    guard rail that is crossed is told once."""
    from evals.guards import WINDOW, findings

    latest: deque[dict[str, float]] = deque(maxlen=WINDOW)
    told: set[str] = set()
    with progress_bar("Train (steps)", total) as bar:

        def on_step(step: int, metrics: dict[str, float]) -> None:
            append_line(folder / STEPS, {"step": step, **metrics})
            latest.append({"step": step, **metrics})
            for finding in findings(latest):
                if (kind := finding.partition(":")[0]) not in told:
                    told.add(kind)
                    console.print(f"  step {step}: {finding}", style="yellow", markup=False)
            note = (
                f"reward {metrics.get('reward', float('nan')):.2f} "
                f"asking {metrics['consultation_rate']:.0%} rho {metrics.get('rho', 0):.2f}"
            )
            bar.at(step, total, note)
            if not console.is_terminal:
                console.print(f"  step {step}: {note}", markup=False)

        yield on_step


def read_history(folder: Path, name: str = STEPS) -> list[dict[str, float]]:
    """All steps, those before an interruption too; one that was run again counts as last seen."""
    by_step: dict[int, dict[str, float]] = {}
    for line in (folder / name).read_text().splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue  # cut off by an interruption; the step was run again
        by_step[int(step["step"])] = step
    return [by_step[number] for number in sorted(by_step)]
