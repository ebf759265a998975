"""The folder of an evaluation: run.json (settings), results.json (scores), items.jsonl (each graded
answer). The answers themselves are in traces.db, the reports in report.md and report.html."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from eapo_agents.errors import BenchmarkError
from eapo_agents.files import write_atomically
from eapo_agents.recipe_file import fixed_consult
from eapo_agents.types import PolicyVersion
from evals.results import Score

RUN_FORMAT = 2
RUN_FILE, RESULTS_FILE, ITEMS_FILE = "run.json", "results.json", "items.jsonl"
Record = Mapping[str, object]
"""A line of items.jsonl."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultSettings:
    """What the figures of a benchmark under a condition depend on beside the policy."""

    kind: Literal["task", "benchmark"]
    benchmark: str
    condition: str
    version: str
    origin: str
    """Where the problems were read from; it alone may differ between runs that are compared."""
    data: str
    """Digest of the problems."""
    limit: int | None
    problems: int
    seed: int
    system_prompt: str
    examples: tuple[tuple[str, str], ...]
    graph: str
    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    consult: Mapping[str, object] | None
    """The recipe's section, where experts are asked."""
    judge: Mapping[str, object] | None
    graph_settings: Mapping[str, object] | None = None
    """What else the recipe says of its graph, where it says something: options, the graph without
    experts, and where input and answer come from."""
    only: tuple[str, ...] | None = None
    """Ids of the problems, where some were chosen."""

    def differences(self, other: ResultSettings) -> list[str]:
        """Return which settings differ, each with both values."""
        mine, theirs = (
            {**asdict(one), "consult": one.consult and fixed_consult(one.consult)}
            for one in (self, other)
        )
        return [
            f"{key} ({_short(value)} and {_short(theirs[key])})"
            for key, value in sorted(mine.items())
            if value != theirs[key] and key != "origin"
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What run.json holds."""

    format: int = RUN_FORMAT
    package_version: str
    created_at: str
    policy: PolicyVersion
    seed: int
    max_error_share: float
    recipe: Mapping[str, object]
    results: Mapping[str, ResultSettings]
    """By key, such as `gsm8k solo`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The judge that graded."""

    judge: str
    """The expert's name."""
    judge_version: str
    judge_identity: Mapping[str, object]
    costs: Sequence[Mapping[str, object]]
    """What it has cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What results.json holds."""

    policy: PolicyVersion
    results: Mapping[str, Score]
    """By key, such as `gsm8k solo`."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Key -> answers that were not sampled, where the run was interrupted."""
    judge: Judged | None = None
    changed: Mapping[str, Sequence[str]] | None = None
    """Key -> answers whose verdict is another than before, where the run was graded again."""

    def to_json(self) -> dict[str, object]:
        """Return everything, for results.json."""
        found = {key: value for key, value in asdict(self).items() if value is not None}
        return {**found, "results": {key: s.to_json() for key, s in self.results.items()}}


def read_settings(folder: Path) -> RunSettings:
    """Return what run.json holds.

    Raises:
        BenchmarkError: the folder is not that of an evaluation, or of another format.
    """
    text = _text(folder / RUN_FILE)
    if text is None and (folder / "study.json").exists():
        raise BenchmarkError(
            f"'{folder}' is a study, whose report compares its arms: use `eapo report {folder}`."
        )
    if text is None:
        raise BenchmarkError(
            f"'{folder}' is not an evaluation (it has no {RUN_FILE}): give the --out folder of an "
            "`eapo eval`."
        )
    number = _parsed(dict[str, object], text, folder / RUN_FILE).get("format")
    if number != RUN_FORMAT:
        raise BenchmarkError(
            f"'{folder / RUN_FILE}' has format {number}, and this version reads {RUN_FORMAT}: "
            "evaluate again, or use the version of eapo-agents that made it."
        )
    return _parsed(RunSettings, text, folder / RUN_FILE)


def read_results(folder: Path) -> Results | None:
    """Return what results.json holds; None where nothing was graded yet.

    Raises:
        BenchmarkError: it cannot be read.
    """
    text = _text(folder / RESULTS_FILE)
    return None if text is None else _parsed(Results, text, folder / RESULTS_FILE)


def read_items(folder: Path) -> dict[str, list[Record]]:
    """Return the graded answers of each key; a line that cannot be read is left out."""
    found: dict[str, list[Record]] = {}
    for line in (_text(folder / ITEMS_FILE) or "").splitlines():
        try:
            record = json.loads(line)
            found.setdefault(f"{record['benchmark']} {record['condition']}", []).append(record)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def write_settings(folder: Path, settings: RunSettings) -> None:
    """Write run.json."""
    write_atomically(folder / RUN_FILE, json.dumps(asdict(settings), indent=1) + "\n")


def write_results(folder: Path, results: Results, items: Mapping[str, Sequence[Record]]) -> None:
    """Write results.json and items.jsonl."""
    lines = (json.dumps(record) + "\n" for records in items.values() for record in records)
    write_atomically(folder / ITEMS_FILE, "".join(lines))
    write_atomically(folder / RESULTS_FILE, json.dumps(results.to_json(), indent=1) + "\n")


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"'{file}' cannot be read: {error}.") from error


def _parsed(kind: type[T], text: str, file: Path) -> T:
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BenchmarkError(
            f"'{file}' is damaged ({where or 'JSON'}: {first['msg']}): evaluate again with another "
            "--out."
        ) from error


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
