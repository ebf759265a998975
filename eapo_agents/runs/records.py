"""Reads what runs and studies leave in their folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import EVALS, RECIPE, RESULT, STEPS, read_history

if TYPE_CHECKING:
    from evals.study import Evaluation, Run


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
    arms = json.loads(settings.read_text())["arms"]
    return [
        _read(run, arm=arm, seed=int(seed.name.removeprefix("seed-")))
        for arm in arms
        for seed in sorted(folder.glob("seed-*"))
        if _has_something(run := seed / arm)
    ]


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
