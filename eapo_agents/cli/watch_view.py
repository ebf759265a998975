"""`eapo watch`: the latest figures of a run or a study."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eapo_agents.runs.records import read_runs

if TYPE_CHECKING:
    from evals.study import Run

_EVERY_S = 2.0
_COLUMNS = ("run", "step", "solo", "helped", "asking", "rho", "reward", "calls", "evaluated")
_LATEST = 10
"""Number of steps that each shown figure is the mean of."""


def watch(folder: Path, *, once: bool) -> None:
    """Show the folder's runs, every two seconds until they have ended."""
    console = Console(highlight=False)
    if once:
        console.print(_view(read_runs(folder)))
        return
    with Live(_view(read_runs(folder)), console=console, auto_refresh=False) as live:
        while True:
            runs = read_runs(folder)
            live.update(_view(runs), refresh=True)
            if _has_ended(folder, runs):
                return
            time.sleep(_EVERY_S)


def _has_ended(folder: Path, runs: Sequence[Run]) -> bool:
    """Return whether a run has its train.json, or a study its report and every arm's result."""
    if (folder / "study.json").exists():
        done = all(run["result"] is not None for run in runs)
        return done and (folder / "report.json").exists()
    return (folder / "train.json").exists() or runs[0]["result"] is not None


def _view(runs: Sequence[Run]) -> Group:
    from evals.guards import findings
    from evals.study import headline

    table = Table(*_COLUMNS, box=None)
    table.columns[0].no_wrap = True
    warnings = []
    for run in runs:
        history, evals = run["history"], run["evals"]
        latest = history[-_LATEST:]
        name = f"{run['arm']}, seed {run['seed']}"
        table.add_row(
            Text(name),
            f"{history[-1]['step']:.0f}" if history else "-",
            _share(latest, "solo/accuracy"),
            _share(latest, "helped/accuracy"),
            _share(latest, "consultation_rate"),
            _share(latest, "rho"),
            _share(latest, "reward"),
            f"{sum(step.get('experts/calls', 0) for step in history):,.0f}",
            f"{headline(evals[-1]):.1%} at {evals[-1]['step']}" if evals else "-",
        )
        warnings += [Text(f"{name}: {found}", style="yellow") for found in findings(history, evals)]
    return Group(table, *warnings)


def _share(steps: Sequence[Mapping[str, float]], name: str) -> str:
    values = [step[name] for step in steps if name in step]
    return f"{sum(values) / len(values):.2f}" if values else "-"
