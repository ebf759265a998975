"""Compares two folders: evaluations problem by problem, training runs figure by figure, studies arm
by arm."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import RECIPE
from eapo_agents.runs.studies import SETTINGS

if TYPE_CHECKING:
    from evals.compare import Comparison
    from evals.page import Page
    from evals.run_comparison import RunComparison
    from evals.run_report import Difference
    from evals.study import Run
    from evals.study_comparison import StudyComparison


def compare(a: str, b: str) -> tuple[Comparison | RunComparison | StudyComparison, Page]:
    """Return the comparison of two evaluations, training runs or studies, and its page.

    Raises:
        UsageError: the two are not of one kind, or one is none of these.
        BenchmarkError: two evaluations whose settings differ, or of which one is unfinished.
    """
    from eapo_agents.runs.grading import is_evaluation
    from evals.compare import compare_runs, comparison_page
    from evals.run_comparison import run_comparison_page

    studies = [(Path(folder) / SETTINGS).exists() for folder in (a, b)]
    if all(studies):
        return _of_studies(a, b)
    if any(studies):
        one, other = (a, b) if studies[0] else (b, a)
        raise UsageError(
            f"'{one}' is a study and '{other}' is none: compare two studies, or two of their runs, "
            f"such as '{one}/seed-0/eapo'. `eapo report` compares the arms of one study."
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


def _of_studies(a: str, b: str) -> tuple[StudyComparison, Page]:
    from eapo_agents.runs.records import read_runs
    from evals.study_comparison import compare_studies, study_comparison_page

    runs = read_runs(Path(a)), read_runs(Path(b))
    for folder, found in zip((a, b), runs, strict=True):
        if not found:
            raise UsageError(f"The study in '{folder}' has no results yet: run it to its end.")
    first_of_arm = {run["arm"]: run for run in reversed(runs[0])}.values()
    recipes = {
        run["arm"]: differences
        for run in first_of_arm
        if (differences := _differing_arm((a, b), run, runs[1])) is not None
    }
    comparison = compare_studies((a, b), runs, recipes)
    return comparison, study_comparison_page(comparison)


def _differing_arm(
    folders: tuple[str, str], run: Run, others: list[Run]
) -> list[Difference] | None:
    """Return how an arm's recipe in the second study is not as in the first, the seed and the place
    of the base policy aside; None where one of them has none."""
    from eapo_agents.recipe_file import load_recipe
    from eapo_agents.runs.records import run_folder
    from eapo_agents.runs.run_reports import differing

    # of one seed where there is one that both have
    same = [other for other in others if other["arm"] == run["arm"]]
    same.sort(key=lambda other: other["seed"] != run["seed"])
    if not same:
        return None
    first, second = (
        run_folder(Path(folder), one["arm"], one["seed"]) / RECIPE
        for folder, one in zip(folders, (run, same[0]), strict=True)
    )
    if not (first.exists() and second.exists()):
        return None
    return [
        one
        for one in differing(load_recipe(second), load_recipe(first))
        if one.key != "seed" and not (one.key in _BASE and _made_here(folders, one))
    ]


_BASE = ("policy.model", "policy.adapter")


def _made_here(folders: tuple[str, str], difference: Difference) -> bool:
    """Whether each study means the base policy that it made itself."""
    return all(
        Path(place).resolve().is_relative_to(Path(folder).resolve())
        for folder, place in zip(folders, (difference.base, difference.here), strict=True)
    )
