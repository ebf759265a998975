"""Tasks of a user's own: `package.module:object`, in any of the forms in which Python says "these
are the problems": a function of a split, or of nothing; an instance or a class with `problems`; a
list; a mapping from split to list. A problem is a `Problem` or a mapping with its keys."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from eapo_agents.errors import EapoError, TaskError
from eapo_agents.grading import find_grader
from eapo_agents.registry import describe, import_object
from eapo_agents.tasks.records import Reading, problems_of, refuse_half_characters, split_named
from eapo_agents.types import Problem


def own_problems(name: str, split: str, reading: Reading) -> tuple[list[Problem], bool]:
    """Return the problems that a user's object gives for a split, and whether it knows splits:
    where it does not, these are all problems.

    Raises:
        TaskError: the object is not there, fails, or gives something else than problems.
    """
    found = import_object(name, what="task", error=TaskError)
    try:
        given, knows = _given(found, split)
        if isinstance(given, Iterable) and not isinstance(given, str | bytes | Mapping):
            given = list(given)  # a generator fails here, if it fails
    except EapoError:
        raise
    except Exception as error:  # a user's code may raise anything
        raise TaskError(
            f"The task '{name}' failed for its split '{split}': {type(error).__name__}: {error}"
        ) from error
    if not isinstance(given, list) or not all(isinstance(one, Problem | Mapping) for one in given):
        what = (
            f"a list with {describe(_odd(given))}" if isinstance(given, list) else describe(given)
        )
        if inspect.iscoroutine(given):
            given.close()
        raise TaskError(
            f"The task '{name}' must give a list of eapo_agents.types.Problem, or of mappings with "
            f"question, answer and grader, and gave {what}."
        )
    return _checked(name, given, reading), knows


def _odd(given: list[object]) -> object:
    return next(one for one in given if not isinstance(one, Problem | Mapping))


def _given(found: object, split: str) -> tuple[Any, bool]:
    """Return what an object gives for a split, and whether it knows splits."""
    if isinstance(found, type):
        found = found()
    if not callable(found) or hasattr(found, "problems"):
        found = getattr(found, "problems", found)
    if callable(found):
        if _takes_split(found):
            return found(split), True
        found = found()
    if isinstance(found, Mapping):
        sides: dict[str, list[Any]] = {"train": [], "heldout": []}
        for key, problems in found.items():
            side = split_named(key)
            if side is None:
                raise TaskError(
                    f"A task that is a mapping has the keys 'train' and 'heldout', got {key!r}."
                )
            sides[side] += problems
        return (sides[split] if split != "all" else [*sides["train"], *sides["heldout"]]), True
    return found, False


def _takes_split(function: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return True
    return any(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters
    )


def _checked(name: str, given: list[Any], reading: Reading) -> list[Problem]:
    """Return problems whose ids differ and whose parts are what they must be."""
    if given and not any(isinstance(one, Problem) for one in given):
        records = ((f"Problem {n} of the task '{name}'", one) for n, one in enumerate(given))
        return problems_of(records, f"'{name}'", name.rpartition(":")[2], reading)
    ids: set[str] = set()
    graders: set[str] = set()
    for number, problem in enumerate(given):
        try:
            _check(problem)
            if problem.id in ids:
                raise ValueError(f"the id '{problem.id}' is there twice")
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"Problem {number} of the task '{name}' is not a problem: {error}."
            ) from error
        ids.add(problem.id)
        graders.add(problem.grader)
    for grader in graders:
        find_grader(grader)
    return given


def _check(problem: object) -> None:
    """Raise ValueError where a part of a problem is not what it must be."""
    if not isinstance(problem, Problem):
        raise ValueError("a task gives either Problems or mappings, and this one gives both")
    for key in ("id", "question", "answer", "grader"):
        value: object = getattr(problem, key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"'{key}' must be a text that is not empty, got {value!r}")
        refuse_half_characters(value, f"'{key}'")
    if not isinstance(problem.metadata, Mapping):
        raise ValueError(f"'metadata' must be a mapping, got {describe(problem.metadata)}")
    refuse_half_characters(
        json.dumps(dict(problem.metadata), ensure_ascii=False, allow_nan=False), "its metadata"
    )
