"""The reward of an answer. Source: EAPO (arXiv 2509.23730): F1 where it is above 0, 0.1 for the
format alone, else 0."""

from __future__ import annotations

from eapo_agents.grading import Grade, grade
from eapo_agents.types import Problem

FORMAT_REWARD = 0.1


def reward(graded: Grade, *, format_reward: float = FORMAT_REWARD) -> float:
    """From 0 to 1. For mathematics the F1 is that of the extracted answer: 1 when equivalent."""
    if graded.score > 0:
        return graded.score
    return format_reward if graded.formatted else 0.0


def score_text(
    text: str | None, problem: Problem, *, format_reward: float = FORMAT_REWARD
) -> tuple[float, bool]:
    """(reward, whether right) of what a policy answered; None, no answer at all, is worth 0.

    Raises:
        GradingError: the problem's gold answer cannot be read. Such a trajectory stays unscored.
    """
    graded = grade(text or "", problem)
    return reward(graded, format_reward=format_reward), graded.correct
