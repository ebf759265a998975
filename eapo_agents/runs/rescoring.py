"""Grading again, from what an evaluation kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import BenchmarkError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.grading import (
    Evaluation,
    grade_run,
    judging_pool,
    prepare_sandbox,
    refuse_unjudged,
    the_judge,
)
from eapo_agents.runs.lock import locked

if TYPE_CHECKING:
    from evals.conditions import Part
    from evals.run_folder import ResultSettings, RunSettings


def rescore(
    folder: Path,
    *,
    data: Mapping[str, str] | None = None,
    judge: str | None = None,
    recipe: Recipe | None = None,
    sandbox: str = "auto",
    unsafe_code: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Grade an evaluation's saved answers again, and say which verdicts changed.

    Args:
        data: benchmark -> file, where the problems are no longer where the run read them.
        judge: the expert of `recipe` that grades, where a benchmark needs one.

    Raises:
        BenchmarkError: the folder is not an evaluation's, or its problems are other ones now.
    """
    from evals.run_folder import read_settings

    settings = read_settings(folder)
    by_benchmark: dict[str, list[ResultSettings]] = {}
    for result in settings.results.values():
        by_benchmark.setdefault(result.benchmark, []).append(result)
    parts = [_part(settings, known, data or {}, folder) for known in by_benchmark.values()]
    for part in parts:
        refuse_unjudged(part.benchmark, judge)
        prepare_sandbox(part.benchmark, sandbox, unsafe=unsafe_code, progress=progress)
    judging = the_judge(recipe, judge, folder) if judge and recipe else None
    with locked(folder):
        return grade_run(folder, settings, parts, judging, again=True, progress=progress)


def _part(
    settings: RunSettings, known: list[ResultSettings], data: Mapping[str, str], folder: Path
) -> Part:
    from eapo_agents.types import Sampling
    from evals.benchmarks import find_benchmark
    from evals.conditions import Condition, Part
    from evals.sources import load_limited
    from evals.task_benchmark import task_benchmark

    first = known[0]
    if first.kind == "task":
        recipe = Recipe.model_validate(settings.recipe)
        origin = data.get(first.benchmark, first.origin)
        benchmark, loaded = task_benchmark(
            recipe,
            origin,
            limit=first.limit,
            only=first.only,
            pool=partial(judging_pool, recipe, folder),
        )
    else:
        benchmark = find_benchmark(first.benchmark)
        there = first.origin if Path(first.origin).exists() else None
        file = data.get(first.benchmark, there)
        loaded = load_limited(benchmark, file, first.limit, first.only)
    if loaded.digest != first.data:
        raise BenchmarkError(
            f"The problems of {benchmark.title} are not those of the run ({loaded.origin}): give "
            f"the same file with --data {first.benchmark}=FILE."
        )
    conditions = tuple(
        Condition(
            name=r.condition,
            graph=r.graph,
            samples=r.samples,
            sampling=Sampling(
                temperature=r.temperature, top_p=r.top_p, max_new_tokens=r.max_new_tokens
            ),
        )
        for r in known
    )
    return Part(benchmark=benchmark, loaded=loaded, conditions=conditions)
