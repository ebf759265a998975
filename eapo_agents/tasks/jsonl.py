"""A user's own problems: one JSON object a line with `id`, `question`, `answer` and `grader`; other
keys are metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eapo_agents.errors import TaskError, UsageError
from eapo_agents.grading import find_grader
from eapo_agents.types import Problem

_KEYS = ("id", "question", "answer", "grader")


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
    return list(problems.values())


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
    metadata = {key: value for key, value in record.items() if key not in _KEYS}
    return Problem(**{key: record[key] for key in _KEYS}, metadata=metadata)
