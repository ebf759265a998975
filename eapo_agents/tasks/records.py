"""Problems from records: a line of a file, a row of a table, what a user's function returns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eapo_agents.errors import GradingError, TaskError, UsageError
from eapo_agents.grading import ACCEPTED, find_grader
from eapo_agents.tasks.files import Numbered, Record, read_records, stem_of
from eapo_agents.tasks.forms import FORMS, Form
from eapo_agents.types import Problem

_KEYS = ("id", "question", "answer", "grader")
_SPLITS = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("heldout", "held_out", "held-out", "test", "eval"), "heldout"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "heldout"),
}
"""What a record's `split` may say, and the split that it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How records are read as problems: the recipe's `task.fields`, `form` and `grader`."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Our key -> the record's, which may be a path: `reward_model.ground_truth`."""
    form: str = "plain"
    grader: str | None = None
    """Of records that name none."""


AS_THEY_ARE = Reading()


def read_problems(path: str | Path, reading: Reading = AS_THEY_ARE) -> list[Problem]:
    """All problems of a file.

    Raises:
        TaskError: names the first record that is wrong, and how.
    """
    return problems_of(read_records(path), f"'{path}'", stem_of(str(path)), reading)


def problems_of(
    records: Iterable[Numbered], source: str, prefix: str, reading: Reading = AS_THEY_ARE
) -> list[Problem]:
    """Return the problems that records describe.

    Args:
        source: where they are from, for messages.
        prefix: begins the ids of records that have none: `mine/7` for the eighth.

    Raises:
        TaskError: names the first record that is wrong, and how.
    """
    form = FORMS.find(reading.form)
    problems: dict[str, Problem] = {}
    graders: set[str] = set()
    for number, (where, record) in enumerate(records):
        try:
            problem = _problem(record, f"{prefix}/{number}", reading, form)
            if problem.id in problems:
                raise ValueError(f"the id '{problem.id}' is there twice")
            if problem.grader not in graders:
                find_grader(problem.grader)
                graders.add(problem.grader)
        except (ValueError, UsageError, GradingError, RecursionError) as error:
            raise TaskError(f"{where} is not a problem: {_sentence(error)}") from error
        problems[problem.id] = problem
    if not problems:
        raise TaskError(f"The source of problems {source} is empty: give it one record a problem.")
    told = [problem.id for problem in problems.values() if split_of(problem)]
    if told and len(told) < len(problems):
        raise TaskError(
            f"Either every problem has a 'split' or none, and {len(told)} of the {len(problems)} "
            f"in {source} have one: give it to all, or to none."
        )
    return list(problems.values())


def split_of(problem: Problem) -> str | None:
    """Return the split that a problem's record names; None if it names none."""
    return split_named(problem.metadata.get("split"))


def split_named(name: object) -> str | None:
    """Return `train` or `heldout` for any of their names; None for anything else."""
    return _SPLITS.get(name.strip().lower()) if isinstance(name, str) else None


def refuse_half_characters(text: str, what: str) -> None:
    """Raise ValueError where a text cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a character ({text[error.start]!a}, a lone surrogate)"
        ) from error


def _problem(record: Record, own_id: str, reading: Reading, form: Form) -> Problem:
    found = dict(form(_renamed(record, reading.fields)))
    if "id" not in found:
        found["id"] = own_id
    if found.get("grader") in (None, ""):
        found["grader"] = reading.grader
    found["question"] = _asked(found.get("question"))
    if isinstance(found.get("answer"), list) and found["answer"]:
        every = [_as_text("answer", one, list(record)) for one in found["answer"]]
        found["answer"], found[ACCEPTED] = every[0], every
    for key in ("id", "question", "answer"):
        found[key] = _as_text(key, found.get(key), list(record))
    if not isinstance(found["grader"], str):
        raise ValueError(
            "'grader' says how its answers are graded (exact, number, math, f1, choice, code), "
            f"and it has {found['grader']!r}: add it, or set task.grader for all"
        )
    if found.get("split") not in (None, "") and split_named(found["split"]) is None:
        raise ValueError(f"'split' must be one of {', '.join(_SPLITS)}, got {found['split']!r}")
    metadata = _plain({key: value for key, value in found.items() if key not in _KEYS})
    assert isinstance(metadata, dict)
    refuse_half_characters(json.dumps(metadata, ensure_ascii=False), "its metadata")
    return Problem(**{key: found[key] for key in _KEYS}, metadata=metadata)


def _renamed(record: Record, fields: Mapping[str, str]) -> dict[str, Any]:
    """Return a record under our keys. What it had under them goes, as do the fields' own."""
    taken = {ours: _at(record, theirs) for ours, theirs in fields.items()}
    gone = {theirs for theirs in fields.values() if theirs in record}
    return {**{k: v for k, v in record.items() if k not in gone}, **taken}


def _at(record: Record, path: str) -> object:
    found: object = record
    if path in record:
        return record[path]
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            raise ValueError(f"task.fields names '{path}', and it has {', '.join(record)}")
        found = found[key]
    return found


def _asked(question: object) -> object:
    """Return the question of a chat with one message of the user's, as many data sets have it."""
    if isinstance(question, list) and all(isinstance(one, Mapping) for one in question):
        asked = [one.get("content") for one in question if one.get("role") == "user"]
        if len(asked) == 1:
            return asked[0]
    return question


def _as_text(key: str, value: object, there: list[str]) -> str:
    if key in ("id", "answer") and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(f"'{key}' must be a finite number or a text, got {value!r}")
        return str(value)
    if key == "answer" and isinstance(value, list | dict):
        raise ValueError(
            f"'answer' must be one text or number, got a {type(value).__name__}: name the part "
            "that is the answer by task.fields, or write a task.form"
        )
    if isinstance(value, str) and value.strip():
        refuse_half_characters(value, f"'{key}'")
        return value
    missing = value is None and key not in there
    rename = f" (it has {', '.join(there)}: task.fields may name another)" if missing else ""
    raise ValueError(f"'{key}' must be a text that is not empty, got {value!r}{rename}")


def _plain(value: object) -> object:
    """Return what a trace can store of a value: dates and decimals as text, no bytes, no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if not isinstance(one, bytes)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value if not isinstance(one, bytes)]
    return str(value)


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
