"""A recipe's task as a benchmark: its held-out problems, its prompt, its grader and reward, and the
protocol of the recipe's eval section."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from eapo_agents.errors import TaskError, UndecidedError
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.grading import Grade, grade
from eapo_agents.recipe import Recipe
from eapo_agents.rewards import is_own_reward, reward, reward_of
from eapo_agents.tasks import is_known, short_name
from eapo_agents.tasks.files import is_file
from eapo_agents.types import Problem
from evals.benchmark import (
    Benchmark,
    GradePrediction,
    Item,
    Loaded,
    Prediction,
    accuracy,
    mean,
    mean_details,
)
from evals.sources import chosen

VERSION = "1"
"""Of prompt, extraction and protocol; raised with each change, so that runs are not mixed."""


def task_benchmark(
    recipe: Recipe,
    name: str | None = None,
    *,
    limit: int | None = None,
    only: Sequence[str] | None = None,
    examples: Sequence[tuple[str, str]] = (),
    pool: Callable[[], ExpertPool] | None = None,
) -> tuple[Benchmark, Loaded]:
    """Return the recipe's task, or the one of that name with the recipe's prompt, as a benchmark.

    Args:
        limit: problems; by default the recipe's `eval.problems`, or all where there are fewer.
        only: ids of the problems, of all held-out ones.
        examples: questions and answers that are shown before each problem.
        pool: makes what a judge is asked through, where the task's reward has one.

    Raises:
        TaskError: the problems cannot be read, or are too few.
        BenchmarkError: there is no problem with one of the ids.
    """
    task, protocol = recipe.task, recipe.eval
    name = name or task.name
    # another file than the recipe's is not trained on: it is evaluated as a whole
    is_other_file = is_file(name) and name != task.name
    problems = task.load("all" if is_other_file else "heldout", recipe.seed, name)
    if limit is not None and limit > len(problems):
        raise TaskError(
            f"The task '{name}' has {len(problems)} problems, and {limit} were asked for: ask for "
            "fewer."
        )
    if only is not None:
        problems = [problems[i] for i in chosen([p.id for p in problems], only, f"Task {name}")]
    else:
        problems = problems[: limit or protocol.problems]
    records = tuple(asdict(problem) for problem in problems)
    canonical = json.dumps(records, sort_keys=True, default=str)
    benchmark = Benchmark(
        name=short_name(name),
        title=f"Task {name}",
        version=VERSION,
        is_task=True,
        system_prompt=task.system_prompt,
        examples=tuple(examples),
        temperature=protocol.temperature,
        max_new_tokens=protocol.max_new_tokens,
        # a query takes the tokens that it takes in training, whatever an answer alone may take
        max_assisted_tokens=recipe.sampling.max_new_tokens,
        samples=protocol.samples,
        greedy=protocol.greedy,
        grades_unfinished=False,
        metrics=_metrics,
        grader=lambda loaded: _grader(recipe, pool),
    )
    return benchmark, Loaded(
        problems=tuple(problems),
        records=records,
        origin=name,
        digest=hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def _grader(recipe: Recipe, pool: Callable[[], ExpertPool] | None) -> GradePrediction:
    """Grade as the training does: the reward is among the details."""
    judging = pool() if pool is not None and recipe.task.judge is not None else None
    own = reward_of(recipe, judging) if is_own_reward(recipe.task.reward) else None
    format_reward = recipe.task.format_reward

    def graded(problem: Problem, prediction: Prediction) -> Grade:
        text = prediction.completion or None
        if own is not None:
            try:
                value, right = own(text, problem)
            except UndecidedError as error:
                return Grade(score=0.0, formatted=False, undecided=True, note=str(error))
            return Grade(score=float(right), formatted=value > 0, details={"reward": value})
        found = grade(text or "", problem)
        value = reward(found, format_reward=format_reward)
        return replace(found, details={**found.details, "reward": value})

    return graded


def _metrics(items: Sequence[Item]) -> dict[str, float]:
    formatted = [mean([float(g.formatted) for g in item.grades]) for item in items]
    return {**accuracy(items), **mean_details("reward")(items), "formatted": mean(formatted)}


def is_task(name: str, recipe: Recipe) -> bool:
    """Return whether a name is that of a task."""
    return name == recipe.task.name or is_known(name)
