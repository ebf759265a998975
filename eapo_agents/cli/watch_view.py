"""`eapo watch`: the latest figures of a run, a study, a demo, an evaluation or a collection."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.runs.records import read_runs
from eapo_agents.runs.stages import Stage, Stages, read_stages
from eapo_agents.runs.view.state import State, state_of

if TYPE_CHECKING:
    from evals.study import Run

_EVERY_S = 2.0
_COLUMNS = (
    *("run", "state", "step", "solo", "helped"),
    *("asking", "rho", "reward", "calls", "evaluated"),
)
_STAGE_COLUMNS = ("stage", "state", "done", "score", "failed", "calls", "seconds")
_LATEST = 10
"""Number of steps that each shown figure is the mean of."""
_CONTINUES = "It is not running: the same command continues it."


def watch(at: str, *, once: bool) -> None:
    """Show what a folder or a store holds, every two seconds until it has ended."""
    console = Console(highlight=False)
    shown, runs_on = _look(at)
    if once or not runs_on:
        console.print(shown)
        return
    if not console.is_terminal:  # only how it ended
        while runs_on:
            time.sleep(_EVERY_S)
            shown, runs_on = _look(at)
        console.print(shown)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while runs_on:
            time.sleep(_EVERY_S)
            shown, runs_on = _look(at)
            live.update(shown, refresh=True)


def _look(at: str) -> tuple[Group, bool]:
    """Return what to show, and whether it still runs."""
    stages = read_stages(at)
    if stages is not None:
        return _stage_view(stages), stages.is_running
    folder = Path(at)
    runs = read_runs(folder, from_the_start=True)
    state = state_of(folder, is_finished=_has_ended(folder, runs))
    return _view(folder, runs, state), state is State.RUNNING


def _has_ended(folder: Path, runs: Sequence[Run]) -> bool:
    """Return whether a run has its train.json, or a study its report and every arm's result."""
    if (folder / "study.json").exists():
        done = all(run["result"] is not None for run in runs)
        return done and (folder / "report.json").exists()
    return (folder / "train.json").exists() or runs[0]["result"] is not None


def _view(folder: Path, runs: Sequence[Run], state: State) -> Group:
    from evals.guards import findings
    from evals.study import headline

    table = Table(*_COLUMNS, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in table.columns[:2]:
        column.no_wrap = True
    warnings = []
    for run in runs:
        history, evals = run["history"], run["evals"]
        latest = history[-_LATEST:]
        name = f"{run['arm']}, seed {run['seed']}"
        finished = run["result"] is not None
        table.add_row(
            Text(name),
            State.FINISHED.value if finished else state.value,
            f"{history[-1]['step']:.0f}" if history else "-",
            _share(latest, "solo/accuracy"),
            _share(latest, "helped/accuracy"),
            _share(latest, "consultation_rate"),
            _share(latest, "rho"),
            _share(latest, "reward"),
            f"{sum(step.get('experts/calls', 0) for step in history):,.0f}",
            f"{headline(evals[-1]):.1%} at {evals[-1]['step']}" if evals else "-",
        )
        found = findings(history, evals, ended=finished)
        warnings += [Text(f"{name}: {sentence}", style="yellow") for sentence in found]
    if state is State.INTERRUPTED:
        warnings.append(Text(_CONTINUES, style="yellow"))
    return Group(table, *warnings)


def _stage_view(stages: Stages) -> Group:
    table = Table(*_STAGE_COLUMNS, box=None)
    for column in table.columns[1:]:
        column.no_wrap = True
    for one in stages.stages:
        table.add_row(
            Text(safe_text(one.name)),
            one.state,
            _done(one),
            _score(one),
            f"{one.failed:,}" if one.failed else "-",
            "-" if one.calls is None else f"{one.calls:,.0f}",
            "-" if one.seconds is None else f"{one.seconds:,.0f}",
        )
    interrupted = any(one.state == State.INTERRUPTED.value for one in stages.stages)
    return Group(table, *([Text(_CONTINUES, style="yellow")] if interrupted else []))


def _done(one: Stage) -> str:
    if one.done is None:
        return "-"
    of = "" if one.planned is None else f" of {one.planned:,}"
    return f"{one.done:,}{of} {one.unit}"


def _score(one: Stage) -> str:
    if one.score is None:
        return "-"
    interval = "" if one.ci95 is None else " [{:.1%}, {:.1%}]".format(*one.ci95)
    return f"{one.score:.1%}{interval}"


def _share(steps: Sequence[Mapping[str, float]], name: str) -> str:
    values = [step[name] for step in steps if name in step]
    return f"{sum(values) / len(values):.2f}" if values else "-"
