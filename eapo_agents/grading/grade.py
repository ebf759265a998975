"""The result of grading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MAX_ANSWER_CHARS = 2_000
"""Longer answers are cut: right answers are shorter, and a hostile one must not cost time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """How good an answer is."""

    score: float
    """From 0 to 1."""
    formatted: bool
    """Whether an answer of the right form could be extracted."""
    extracted: str | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    """Further measures of the same answer, such as `em` and `recall`."""
    note: str = ""
    """For people, such as why a program failed. Untrusted text."""

    grader: str = ""
    """What graded it: votes group answers that it holds equal."""
    undecided: bool = False
    """Whether the grader could not decide in its limits. Such a grade is never a 0: it earns no
    reward, counts in no mean, and is counted and shown."""

    @property
    def correct(self) -> bool:
        """Whether it counts as right in an accuracy."""
        return self.score >= 1.0


NOTHING = Grade(score=0.0, formatted=False)
"""No answer could be found."""
