"""Reads what runs and studies leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import EVALS, RECIPE, RESULT, STEPS, read_history

if TYPE_CHECKING:
    from evals.study import Evaluation, Run
    from evals.study_table import TableRuns


def read_runs(folder: Path, *, from_the_start: bool = False) -> list[Run]:
    """Return a run, or the runs of a study that have begun.

    Args:
        from_the_start: take a run of which no step has ended.

    Raises:
        UsageError: the folder holds neither.
    """
    settings = folder / "study.json"
    if not settings.exists():
        if not (_has_something(folder) or (from_the_start and (folder / RECIPE).exists())):
            raise UsageError(
                f"'{folder}' holds no run and no study: give the --out folder of `eapo train`, "
                "`eapo study`, `eapo demo` or `eapo eval`."
            )
        return [_read(folder, arm=folder.resolve().name, seed=_seed(folder))]
    kept = json.loads(settings.read_text())
    return [
        _read(run, arm=arm, seed=number)
        for arm in kept["arms"]
        for number, _ in _seeds(run_folder(folder, arm, 0).parents[1])
        if _has_something(run := run_folder(folder, arm, number))
    ]


def read_table_runs(folder: Path) -> TableRuns | None:
    """Return the runs of a table that have begun, by cell; None where the folder holds no table."""
    settings = folder / "study.json"
    kept = json.loads(settings.read_text()).get("table") if settings.exists() else None
    if kept is None:
        return None
    from evals.study_table import CellRuns, TableRuns

    cells = [
        CellRuns(
            task=cell["task"],
            help=cell["help"],
            method=cell["method"],
            calls=cell["calls"],
            runs=[
                _read(run, arm=cell["arm"], seed=number)
                for number, seed in _seeds(folder / cell["task"] / cell["help"])
                if _has_something(run := seed / cell["arm"])
            ],
        )
        for cell in kept["cells"]
    ]
    return TableRuns(
        cells=cells, seeds=kept["seeds"], against=kept["against"], without=kept["without"]
    )


def run_folder(study: Path, arm: str, seed: int) -> Path:
    """Return the folder of a study's run. A table's arms are named with their study, such as
    sums/plan/eapo."""
    return study / Path(arm).parent / f"seed-{seed}" / Path(arm).name


def _seeds(study: Path) -> list[tuple[int, Path]]:
    """Return a study's seeds with their folders, in the order of their numbers."""
    return sorted((int(f.name.removeprefix("seed-")), f) for f in study.glob("seed-*"))


def _seed(folder: Path) -> int:
    """Return the seed of a training run's recipe."""
    import yaml

    saved = folder / RECIPE
    return int(yaml.safe_load(saved.read_text(encoding="utf-8"))["seed"]) if saved.exists() else 0


def _has_something(folder: Path) -> bool:
    return any((folder / name).exists() for name in (STEPS, EVALS))


def _read(folder: Path, *, arm: str, seed: int) -> Run:
    # of a study's arm, or of a training run
    results = [file for name in ("result.json", RESULT) if (file := folder / name).exists()]
    evals = read_history(folder, EVALS) if (folder / EVALS).exists() else []
    return {
        "arm": arm,
        "seed": seed,
        "history": read_history(folder) if (folder / STEPS).exists() else [],
        "evals": cast("list[Evaluation]", evals),
        "result": json.loads(results[0].read_text()) if results else None,
    }
