"""How far a judge agrees with the grades that a file of predictions has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from eapo_agents.grading import Grade
from eapo_agents.types import Problem
from evals.benchmark import GradePrediction, Loaded, Prediction
from evals.scoring import answers, grade_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two sets of grades of the same answers."""

    answers: int
    """Those that have a grade, a text, and a verdict of the judge."""
    equal: int
    share: float
    kappa: float | None
    """Cohen's (1960): agreement beyond chance, 1 at most. None where both gave one grade only."""
    differing: Sequence[str]
    """`id: the file's grade, the judge's`, the first hundred."""


def regraded(
    loaded: Loaded, predictions: Mapping[str, tuple[Prediction, ...]]
) -> list[tuple[Problem, Prediction]]:
    """Return the answers that have a grade and a text, without the grade."""
    return [
        (problem, replace(prediction, verdict=None))
        for problem, prediction in answers(loaded, predictions)
        if prediction.verdict is not None and (prediction.completion or prediction.answer)
    ]


def agree(
    loaded: Loaded,
    predictions: Mapping[str, tuple[Prediction, ...]],
    judge: GradePrediction,
    *,
    num_threads: int = 1,
    on_graded: Callable[[], None] = lambda: None,
) -> Agreement:
    """Let the judge grade the answers that the file has grades for, and compare.

    Raises:
        GradingError: the judge failed.
    """
    given = [
        (problem, p.verdict)
        for problem, p in answers(loaded, predictions)
        if p.verdict is not None and (p.completion or p.answer)
    ]
    jobs = regraded(loaded, predictions)
    grades = grade_all(jobs, judge, num_threads=num_threads, on_graded=on_graded)
    return compare(
        [
            (problem.id, verdict.name, _name(grade))
            for (problem, verdict), grade in zip(given, grades, strict=True)
            if not grade.undecided
        ]
    )


def compare(pairs: Sequence[tuple[str, str, str]]) -> Agreement:
    """Return how far (id, one grade, other grade) agree."""
    n = len(pairs)
    equal = sum(one == other for _, one, other in pairs)
    ones, others = Counter(one for _, one, _ in pairs), Counter(other for _, _, other in pairs)
    chance = sum(ones[name] * others[name] for name in ones) / n**2 if n else 1.0
    share = equal / n if n else 0.0
    return Agreement(
        answers=n,
        equal=equal,
        share=share,
        kappa=(share - chance) / (1 - chance) if chance < 1 else None,
        differing=[f"{key}: {one}, {other}" for key, one, other in pairs if one != other][:100],
    )


def _name(grade: Grade) -> str:
    return max(("correct", "incorrect", "not_attempted"), key=lambda name: grade.details[name])
