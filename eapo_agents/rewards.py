"""The reward of an answer. Source: EAPO (arXiv 2509.23730): F1 if it is above 0, else 0.1 for the
right format, else 0."""

from __future__ import annotations

from eapo_agents.grading import Grade, grade
from eapo_agents.types import Problem

FORMAT_REWARD = 0.1


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
        GradingError: the problem's gold answer cannot be read. The trajectory stays unscored.
    """
    graded = grade(text or "", problem)
    return reward(graded, format_reward=format_reward), graded.correct
