"""Evaluation of a recipe's task, and the comparison with an earlier evaluation."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.files import write_atomically
from eapo_agents.foreign import refuse_foreign_packages
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import TRACES, save_recipe
from eapo_agents.runs.loading import load_agent, problems_of

if TYPE_CHECKING:
    from evals.metrics import PairedDifference
    from evals.runner import Score


def evaluate(
    recipe: Recipe, out: Path, *, baseline: str | None = None, progress: Progress = SILENT
) -> dict[str, Any]:
    """Return the tool-free accuracy, and the paired difference to an earlier evaluation."""
    from eapo_agents.store import TraceStore

    refuse_foreign_packages()
    before = _read_baseline(baseline) if baseline else None
    split = "all" if recipe.task.name.endswith(".jsonl") else "heldout"
    problems = problems_of(recipe, split, recipe.eval.problems)
    if before is not None:
        _refuse_other_problems(before, problems)
    agent = load_agent(recipe, progress)
    from evals.runner import evaluate as score

    save_recipe(recipe, out, progress)

    started = time.perf_counter()
    weights = agent.engine.policy_version.weights
    with (
        TraceStore.open(str(out / TRACES), create=True) as store,
        progress.bar("Evaluate (problems)", len(problems)) as bar,
    ):
        scores = score(agent, problems, store, f"eval-{weights}", bar.at)
    result: dict[str, Any] = {
        "model": recipe.policy.model,
        "weights": weights,
        **{mode: s.summary() for mode, s in scores.items()},
        "seconds": time.perf_counter() - started,
    }
    if before is not None:
        result["paired"] = _compare(before, scores)
    per_problem = {mode: s.per_problem for mode, s in scores.items()}
    write_atomically(
        out / "eval.json", json.dumps({**result, "per_problem": per_problem}, indent=1) + "\n"
    )
    return result


def readable(result: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's scores and differences as lines for people."""
    from evals.tables import difference_text, share

    lines = dict(result)
    for mode in ("sampled", "greedy"):
        if mode in result:
            score = result[mode]
            how = f"{score['n']} problems, {score['samples']} each, T {score['temperature']:g}"
            form = f"{score['formatted']:.0%} in the asked form"
            lines[mode] = f"{share(score['accuracy'], score['ci95'])}  ({how}, {form})"
    for mode, difference in lines.pop("paired", {}).items():
        lines[f"{mode}, difference"] = difference_text(difference)
    return lines


def _read_baseline(file: str) -> dict[str, dict[str, float]]:
    from eapo_agents.errors import UsageError

    path = Path(file)
    path = path / "eval.json" if path.is_dir() else path
    try:
        per_problem: dict[str, dict[str, float]] = json.loads(path.read_text())["per_problem"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"The baseline '{file}' is no evaluation ({type(error).__name__}): "
            "give the --out folder of an earlier `eapo eval`, or its eval.json."
        ) from error
    return per_problem


def _refuse_other_problems(before: dict[str, dict[str, float]], problems: Any) -> None:
    from eapo_agents.errors import UsageError

    wanted = {problem.id for problem in problems}
    for mode, per_problem in before.items():
        if per_problem.keys() != wanted:
            raise UsageError(
                f"The baseline is over other problems ({len(per_problem)}, {mode}) than this "
                "recipe's "
                f"{len(wanted)}: evaluate both with the same task, eval.problems and seed."
            )


def _compare(
    before: dict[str, dict[str, float]], after: dict[str, Score]
) -> dict[str, PairedDifference]:
    from evals.metrics import paired_differences

    return paired_differences(
        {mode: (before[mode], score.per_problem) for mode, score in after.items() if mode in before}
    )
