"""A user's own problems: one JSON object a line with `id`, `question`, `answer` and `grader`; other
keys are metadata. `split`, where it is there, says what a problem is for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eapo_agents.errors import TaskError, UsageError
from eapo_agents.grading import find_grader
from eapo_agents.types import Problem

_KEYS = ("id", "question", "answer", "grader")
_SPLITS = {"train": "train", "heldout": "heldout", "test": "heldout", "validation": "heldout"}
"""What a line's `split` may say, and the split that it means."""


def read_problems(path: str | Path) -> list[Problem]:
    """All problems of a file; empty lines are skipped.

    Raises:
        TaskError: names the first line that is wrong, and how.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"The problem file '{path}' cannot be read: {error}.") from error
    problems: dict[str, Problem] = {}
    # not splitlines: a question may hold a Unicode line separator
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            problem = _problem(line)
            if problem.id in problems:
                raise ValueError(f"the id '{problem.id}' is there twice")
        except (ValueError, UsageError, RecursionError) as error:
            raise TaskError(f"Line {number} of '{path}' is not a problem: {error}") from error
        problems[problem.id] = problem
    if not problems:
        raise TaskError(f"The problem file '{path}' is empty: give one JSON object a line.")
    told = [problem.id for problem in problems.values() if split_of(problem)]
    if told and len(told) < len(problems):
        raise TaskError(
            f"Either every problem has a 'split' or none, and {len(told)} of the {len(problems)} "
            f"in '{path}' have one: give it to all, or to none."
        )
    return list(problems.values())


def split_of(problem: Problem) -> str | None:
    """Return the split that a problem's line names; None if it names none."""
    return _SPLITS.get(str(problem.metadata.get("split")))


def _problem(line: str) -> Problem:
    record: Any = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a JSON object is needed, got {type(record).__name__}.")
    for key in _KEYS:
        value = record.get(key)
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and key in ("id", "answer")
        ):
            record[key] = str(value)
        elif not isinstance(value, str) or not value.strip():
            raise ValueError(f"'{key}' must be a text that is not empty, got {value!r}.")
    find_grader(record["grader"])
    if record.get("split") is not None and record["split"] not in _SPLITS:
        raise ValueError(f"'split' must be one of {', '.join(_SPLITS)}, got {record['split']!r}.")
    metadata = {key: value for key, value in record.items() if key not in _KEYS}
    return Problem(**{key: record[key] for key in _KEYS}, metadata=metadata)
