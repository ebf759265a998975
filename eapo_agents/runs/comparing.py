"""Compares two folders: evaluations problem by problem, training runs figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import RECIPE

if TYPE_CHECKING:
    from evals.compare import Comparison
    from evals.page import Page
    from evals.run_comparison import RunComparison


def compare(a: str, b: str) -> tuple[Comparison | RunComparison, Page]:
    """Return the comparison of two evaluations or of two training runs, and its page.

    Raises:
        UsageError: one is an evaluation and the other a training run, or one is neither.
        BenchmarkError: two evaluations whose settings differ, or of which one is unfinished.
    """
    from eapo_agents.runs.grading import is_evaluation
    from evals.compare import compare_runs, comparison_page
    from evals.run_comparison import run_comparison_page

    for folder in (a, b):
        if (Path(folder) / "study.json").exists():
            raise UsageError(
                f"'{folder}' is a study: `eapo report` compares its arms. Give the folder of one "
                "run, such as its seed-0/eapo."
            )
    evaluated = [is_evaluation(Path(folder)) for folder in (a, b)]
    if all(evaluated) or not any(_is_trained(folder) for folder in (a, b)):
        comparison = compare_runs(a, b)
        return comparison, comparison_page(comparison)
    if any(evaluated):
        one, other = (a, b) if evaluated[0] else (b, a)
        raise UsageError(
            f"'{one}' is an evaluation and '{other}' a training run: compare two evaluations, or "
            "two training runs. `eapo eval` evaluates a training run's policy."
        )
    found = _of_training(a, b)
    return found, run_comparison_page(found)


def _is_trained(folder: str) -> bool:
    from eapo_agents.runs.folder import EVALS, STEPS

    return any((Path(folder) / name).exists() for name in (STEPS, EVALS))


def _of_training(a: str, b: str) -> RunComparison:
    from eapo_agents.recipe_file import load_recipe
    from eapo_agents.runs.records import read_runs
    from eapo_agents.runs.run_reports import differing
    from evals.run_comparison import RunComparison
    from evals.study import run_figures

    runs = [read_runs(Path(folder)) for folder in (a, b)]
    saved = [Path(folder) / RECIPE for folder in (a, b)]
    recipes = None
    if all(file.exists() for file in saved):
        first, second = (load_recipe(file) for file in saved)
        recipes = differing(second, first)
    return RunComparison(
        folders=(a, b),
        figures=(run_figures(runs[0][0]), run_figures(runs[1][0])),
        recipes=recipes,
    )
