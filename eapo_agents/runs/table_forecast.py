"""What a table, or a study, will take: told before it begins, and while it runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.recipe import Recipe
from eapo_agents.recipe_rules import is_own
from eapo_agents.runs.studies import BASE, RESULT, Job, Jobs
from eapo_agents.types import total_known


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Bounds of what is left to run."""

    runs: int
    bases: int
    """Base policies."""
    done: int
    """Runs and base policies that have ended before, and are not run again."""
    training_calls: int | None
    """Most expert calls of the trainings, with their warm starts; None where a graph of a user's
    decides."""
    evaluation_calls: int | None
    """Most expert calls of the evaluations with experts."""
    seconds: float | None
    """How long it will take, from what has ended; None where nothing like it has."""
    at_once: int

    def told(self) -> str:
        """Return it as a sentence or two."""
        if not self.runs + self.bases:
            return f"All {self.done} runs and base policies have ended."
        before = f"; {self.done} have ended before" if self.done else ""
        took = (
            "How long is told when the first of each method has ended"
            if self.seconds is None
            else f"About {_duration(self.seconds)}, from those that have ended"
        )
        return (
            f"To run: {self.bases} base policies and {self.runs} trainings, {self.at_once} at "
            f"once{before}. Expert calls: {_most(self.training_calls)} to train, "
            f"{_most(self.evaluation_calls)} to evaluate with experts. {took}."
        )


def forecast(wanted: Jobs) -> Forecast:
    """Return what the jobs without a result will take."""
    every = [*wanted.bases(), *wanted.runs()]
    todo = [job for job in every if not job.done]
    bases = [job for job in todo if job.arm == BASE]
    runs = [job for job in todo if job.arm != BASE]
    warm = [_warm_start_calls(job.recipe) for job in bases]
    return Forecast(
        runs=len(runs),
        bases=len(bases),
        done=len(every) - len(todo),
        training_calls=total_known([*warm, *(_training_calls(job.recipe) for job in runs)]),
        evaluation_calls=total_known(_evaluation_calls(job.recipe) for job in runs),
        seconds=_seconds_left(every, wanted.at_once),
        at_once=wanted.at_once,
    )


def _seconds_left(every: Sequence[Job], at_once: int) -> float | None:
    """Return how long the jobs without a result take, from the time a unit of work took in those
    with one; None where a kind of job that is left has none that has ended."""
    spent: dict[str, tuple[float, float]] = {}
    for job in (job for job in every if job.done):
        took = json.loads((job.folder / RESULT).read_text())["seconds"]
        seconds, work = spent.get(_kind(job), (0.0, 0.0))
        spent[_kind(job)] = seconds + took, work + _work(job)
    left = [job for job in every if not job.done]
    if not left:
        return 0.0
    if any(_kind(job) not in spent for job in left):
        return None
    rates = {kind: seconds / work for kind, (seconds, work) in spent.items()}
    times = [rates[_kind(job)] * _work(job) for job in left]
    return max(sum(times) / at_once, max(times))


def _kind(job: Job) -> str:
    """Return which jobs take about as long for a unit of work."""
    return BASE if job.arm == BASE else job.recipe.train.method


def _work(job: Job) -> float:
    """Return a job's size, to compare it with others of its kind: rollouts that are trained on."""
    recipe, train = job.recipe, job.recipe.train
    if job.arm == BASE:
        warm = recipe.warm_start
        return float(warm.problems * warm.epochs) if warm is not None else 1.0
    if train.method == "logged":
        return float(recipe.collect.problems * recipe.collect.num_generations * train.epochs)
    return float(train.steps * train.problems_per_step * train.num_generations)


def _training_calls(recipe: Recipe) -> int | None:
    """Return the most expert calls of a training."""
    from trainers.dry_run import first_with_rollouts, most_calls_of_rollout, most_solutions

    train, collect, share = recipe.train, recipe.collect, recipe.consult.solo_share
    if train.method == "none":
        return 0
    most = most_solutions(recipe)
    if train.method != "distillation":
        if recipe.consult.experts and is_own(recipe.graph):
            return None
        logged = train.method == "logged"
        size = collect.num_generations if logged else train.num_generations
        steps = train.steps + 1 - first_with_rollouts(recipe)
        problems = collect.problems if logged else steps * train.problems_per_step
        most += problems * (size - round(share * size)) * most_calls_of_rollout(recipe, 1)
    return most if train.expert_calls is None else min(most, train.expert_calls)


def _evaluation_calls(recipe: Recipe) -> int | None:
    """Return the most expert calls of the evaluation with experts, after a training."""
    if recipe.consult.experts and is_own(recipe.graph):
        return None
    from trainers.dry_run import most_calls_of_rollout

    samples = recipe.eval.samples + recipe.eval.greedy
    return recipe.eval.problems * samples * most_calls_of_rollout(recipe, 1)


def _warm_start_calls(recipe: Recipe) -> int:
    """Return the expert calls of a warm start: one for each of its problems."""
    return recipe.warm_start.problems if recipe.warm_start is not None else 0


def _most(calls: int | None) -> str:
    return "as many as the graph makes" if calls is None else f"at most {calls:,}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
