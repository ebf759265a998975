"""The reward of an answer. Source: EAPO (arXiv 2509.23730): F1 if it is above 0, else 0.1 for the
right format, else 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, cast

from eapo_agents.errors import GradingError, UndecidedError
from eapo_agents.grading import LENIENT, SLOW, Grade, grade
from eapo_agents.registry import Registry, describe
from eapo_agents.types import Problem

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe

FORMAT_REWARD = 0.1
PAPER = "paper"
Reward = Callable[[str | None, Problem], tuple[float, bool]]
"""(answer or None, problem) -> (reward, whether right)."""
Given = Callable[[str | None, Problem], object]
"""A user's: it may return the reward alone."""


def reward(graded: Grade, *, format_reward: float = FORMAT_REWARD) -> float:
    """Return a reward from 0 to 1. For mathematics, the F1 of an equivalent answer is 1."""
    if graded.score > 0:
        return graded.score
    return format_reward if graded.formatted else 0.0


def score_text(
    text: str | None, problem: Problem, *, format_reward: float = FORMAT_REWARD
) -> tuple[float, bool]:
    """Return (reward, whether right) of a policy's answer; None, a missing answer, earns 0.

    Raises:
        GradingError: the problem's gold answer cannot be read.
        UndecidedError: the grader could not decide. The trajectory stays unscored.
    """
    graded = grade(text or "", problem)
    if graded.undecided:
        raise UndecidedError(
            f"The answer to problem '{problem.id}' could not be graded: {graded.note}."
        )
    return reward(graded, format_reward=format_reward), graded.correct


def scored(reward: Reward, text: str | None, problem: Problem) -> tuple[float | None, bool | None]:
    """Return (reward, whether right); None twice where the grader could not decide."""
    try:
        return reward(text, problem)
    except UndecidedError:
        return None, None


def reward_of(recipe: Recipe) -> Reward:
    """Return the reward of a recipe's task.

    Raises:
        UsageError: there is none of that name.
    """
    return find_reward(recipe.task.reward, format_reward=recipe.task.format_reward)


def may_be_slow(reward: Reward, problem: Problem) -> bool:
    """Return whether scoring may take long: graders in other processes, a user's code."""
    ours = reward is score_text or isinstance(reward, partial)
    grader = problem.grader.removesuffix(LENIENT)
    return not ours or grader in SLOW or ":" in grader


def find_reward(name: str, *, format_reward: float = FORMAT_REWARD) -> Reward:
    """Return the reward of that name: `paper`, or a user's `package.module:function`.

    Raises:
        UsageError: there is none.
    """
    given = REWARDS.find(name)
    if name in REWARDS:
        return partial(score_text, format_reward=format_reward)
    return lambda text, problem: _checked(name, given, text, problem)


def _checked(name: str, given: Given, text: str | None, problem: Problem) -> tuple[float, bool]:
    """A user's reward. It never becomes 0 for want of a score: it raises GradingError."""
    try:
        found = given(text, problem)
    except Exception as error:
        raise GradingError(
            f"The reward '{name}' failed on problem '{problem.id}': {type(error).__name__}: {error}"
        ) from error
    value, right = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise GradingError(
            f"The reward '{name}' must return a finite number, or (number, whether right), and "
            f"returned {describe(found)} ({found!r}) for problem '{problem.id}'."
        )
    return float(value), value >= 1 if right is None else bool(right)


REWARDS = Registry[Given](
    "reward",
    {PAPER: score_text},
    accept=lambda found: cast(Given, found) if callable(found) else None,
    rule="a function (answer or None, problem) that returns a number, or (number, whether right)",
)
