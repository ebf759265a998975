"""Graders: functions from a model's text and the problem to a grade. Rewards and benchmarks share
them.

A grader never raises on what a policy wrote. It raises `GradingError` if the gold answer itself
cannot be read. `name:lenient` is the same grader for models that were not asked for a form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from eapo_agents.errors import GradingError, UsageError
from eapo_agents.grading import choice, code, mathematics, numbers, texts
from eapo_agents.grading.extraction import extract_answer
from eapo_agents.grading.grade import MAX_ANSWER_CHARS, NOTHING, Grade
from eapo_agents.grading.texts import normalise
from eapo_agents.registry import Registry, describe
from eapo_agents.types import Problem

__all__ = [
    "ACCEPTED",
    "GRADERS",
    "LENIENT",
    "MAX_ANSWER_CHARS",
    "NOTHING",
    "SLOW",
    "Grade",
    "extract_answer",
    "find_grader",
    "grade",
    "grade_answer",
    "normalise",
    "runs_elsewhere",
    "same_answer",
]
LENIENT = ":lenient"
_EXACT = "exact:"
ACCEPTED = "accepted_answers"
"""Key of a problem's metadata: all answers that are right, where there are several."""
SLOW = ("math", "code")
"""Graders that wait for another process."""


class GradeText(Protocol):
    """Finds the answer in a model's text and grades it."""

    def __call__(self, text: str, problem: Problem, *, lenient: bool = False) -> Grade: ...


@dataclass(frozen=True, slots=True)
class Grader:
    """A way to grade: whole texts, and extracted answers."""

    text: GradeText
    answer: Callable[[str, Problem], Grade]


_OURS = {
    "exact": Grader(texts.exact, texts.exact_answer),
    "verbatim": Grader(texts.verbatim, texts.verbatim_answer),
    "number": Grader(numbers.number, numbers.number_answer),
    "f1": Grader(texts.f1, texts.f1_answer),
    "math": Grader(mathematics.math, mathematics.math_answer),
    "choice": Grader(choice.choice, choice.choice_answer),
    "code": Grader(code.code, code.code_answer),
}


def _grader(found: object) -> Grader | None:
    if isinstance(found, Grader):
        return found
    return _users_grader(found) if callable(found) and not isinstance(found, type) else None


def _users_grader(function: Callable[[str, Problem], object]) -> Grader:
    """A user's function of (text, problem), which finds the answer in the text by itself."""

    def answer(text: str, problem: Problem) -> Grade:
        try:
            found = function(text, problem)
        except Exception as error:
            raise GradingError(
                f"The grader '{problem.grader}' failed on problem '{problem.id}': "
                f"{type(error).__name__}: {error}"
            ) from error
        if isinstance(found, bool):
            return Grade(score=float(found), formatted=bool(text.strip()), extracted=text)
        if not isinstance(found, Grade):
            raise GradingError(
                f"The grader '{problem.grader}' must return whether the answer is right, or an "
                f"eapo_agents.grading.Grade, and returned {describe(found)}."
            )
        return found

    def whole(text: str, problem: Problem, *, lenient: bool = False) -> Grade:
        return answer(text, problem)

    return Grader(whole, answer)


GRADERS = Registry[Grader](
    "grader",
    _OURS,
    accept=_grader,
    rule="a function (text, problem) that returns whether it is right, or a Grade",
)


def grade(text: str, problem: Problem) -> Grade:
    """Grade a policy's text.

    Raises:
        UsageError: there is no grader of that name.
        GradingError: the gold answer cannot be read.
    """
    lenient = problem.grader.endswith(LENIENT)
    grader = find_grader(problem.grader)
    return _best(lambda one: grader.text(text, one, lenient=lenient), problem)


def grade_answer(answer: str, problem: Problem) -> Grade:
    """Grade an extracted answer. Raises as `grade` does."""
    grader = find_grader(problem.grader)
    return _best(lambda one: grader.answer(answer[:MAX_ANSWER_CHARS], one), problem)


def _best(graded: Callable[[Problem], Grade], problem: Problem) -> Grade:
    """Return the best grade under any of the answers that are right."""
    accepted = problem.metadata.get(ACCEPTED) or [problem.answer]
    grades = [graded(replace(problem, answer=answer)) for answer in accepted]
    best = max(grades, key=lambda found: (found.score, found.formatted))
    undecided = next((found for found in grades if found.undecided), best)
    return replace(best if best.correct else undecided, grader=problem.grader)


def same_answer(one: str, other: str, grader: str) -> bool:
    """Return whether a grader holds two extracted answers equal."""
    name = grader.removesuffix(LENIENT)
    if one == other or name.split(":")[0] not in ("math", "number", "exact", "choice"):
        return one == other
    problem = Problem(id="vote", question="", answer=one, grader=grader)
    try:
        return grade_answer(other, problem).correct
    except GradingError:
        return False


def find_grader(name: str) -> Grader:
    """Return the grader of that name: a short one, `exact` with what counts
    (`exact:case+space+end`), or `package.module:object`.

    Raises:
        UsageError: there is none.
    """
    name = name.removesuffix(LENIENT)
    if not name.startswith(_EXACT):
        return GRADERS.find(name)
    counts = name.removeprefix(_EXACT).split("+")
    if unknown := [found for found in counts if found not in texts.COUNTS]:
        raise UsageError(
            f"The grader '{name}' says that '{unknown[0]}' counts: behind '{_EXACT}' stand one or "
            f"more of {', '.join(texts.COUNTS)}, with a plus between."
        )
    return Grader(partial(texts.exact, counts=counts), partial(texts.exact_answer, counts=counts))


def runs_elsewhere(name: str) -> bool:
    """Return whether a grader waits for another process, or is a user's."""
    name = name.removesuffix(LENIENT)
    return name in SLOW or (":" in name and not name.startswith(_EXACT))
