"""What an evaluation's folder holds: scores, graded samples, and what differs between two runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import BenchmarkError, EapoError
from eapo_agents.runs.view.state import State, state_of

if TYPE_CHECKING:
    from eapo_agents.store.briefs import Brief
    from eapo_agents.store.browsing import StoreBrowser
    from evals.compare import Comparison
    from evals.results import Score
    from evals.run_folder import Record, Results, RunSettings

SAMPLES_OF_A_PAGE = 100
VERDICTS = ("right", "wrong", "undecided")
SEALED = "sealed: the benchmark asks that its text is not shown"
_CATEGORIES = ("category", "subject", "type", "level", "domain", "task", "topic")
"""Keys of a problem's metadata that name its part of a benchmark."""
_MOST_FOR_CATEGORIES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """An evaluation so far."""

    settings: RunSettings | None
    results: Results | None
    state: State
    missing: int
    """Answers that were not sampled."""
    problem: str = ""
    """Why its files cannot be read."""

    @property
    def scores(self) -> Mapping[str, Score]:
        """Return the scores by key, such as `gsm8k solo`."""
        return {} if self.results is None else self.results.results

    @property
    def keys(self) -> list[str]:
        """Return the keys that the run has or will have."""
        return list(self.settings.results) if self.settings is not None else list(self.scores)

    @property
    def planned(self) -> int:
        """Return how many answers the run samples."""
        if self.settings is None:
            return 0
        return sum(one.problems * one.samples for one in self.settings.results.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One answer of a benchmark, with its grade where it has one."""

    problem_id: str
    rollout: int
    verdict: str
    """right, wrong or undecided: the grader could not decide, or has not graded it yet."""
    extracted: str | None
    note: str
    stop_reason: str
    tokens: int | None
    consultations: int
    brief: Brief | None
    """Where it is in the store; None where the store is gone."""

    @property
    def question(self) -> str:
        """Return the question, or why it is not shown."""
        return "" if self.brief is None else unsealed(self.brief.problem.question)

    @property
    def gold(self) -> str:
        """Return the gold answer, or why it is not shown."""
        return "" if self.brief is None else unsealed(self.brief.problem.answer)

    @property
    def answer(self) -> str | None:
        """Return the whole answer."""
        if self.brief is None or self.brief.answer is None:
            return None
        return unsealed(self.brief.answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A page of samples."""

    samples: Sequence[Sample]
    num: int
    """Of all pages."""
    counts: Mapping[str, int]
    """Verdict -> number of samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """A part of a benchmark."""

    name: str
    num: int
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A problem that one of two runs has right."""

    problem_id: str
    gained: bool
    a: Sample | None
    b: Sample | None


def unsealed(text: str) -> str:
    """Return a text, or that it is sealed: the view never opens it."""
    from evals.sealing import MARK

    return SEALED if text.startswith(MARK) else text


@dataclass(slots=True)
class Evaluations:
    """Reads evaluations, and keeps what it read until a file changes."""

    _kept: dict[Path, tuple[object, Evaluated]] = field(default_factory=dict)
    _items: dict[Path, tuple[object, dict[str, list[Record]]]] = field(default_factory=dict)

    def read(self, folder: Path) -> Evaluated:
        """Return a run's scores. What cannot be read is said in `problem`."""
        from evals.run_folder import RESULTS_FILE, RUN_FILE

        stamp = tuple(_stamp(folder / name) for name in (RUN_FILE, RESULTS_FILE))
        kept = self._kept.get(folder)
        if kept is not None and kept[0] == stamp and kept[1].state is State.FINISHED:
            return kept[1]
        found = _read(folder)
        self._kept[folder] = stamp, found
        return found

    def items(self, folder: Path, key: str) -> list[Record]:
        """Return the graded answers of one key."""
        from evals.run_folder import ITEMS_FILE, read_items

        stamp = _stamp(folder / ITEMS_FILE)
        kept = self._items.get(folder)
        if kept is None or kept[0] != stamp:
            kept = stamp, read_items(folder)
            self._items[folder] = kept
        return kept[1].get(key, [])


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _read(folder: Path) -> Evaluated:
    from evals.run_folder import read_results, read_settings

    settings: RunSettings | None = None
    try:
        settings = read_settings(folder)
        results = read_results(folder)
    except BenchmarkError as error:
        state = state_of(folder, is_finished=False)
        return Evaluated(
            settings=settings, results=None, state=state, missing=0, problem=str(error)
        )
    missing = 0 if results is None else sum(results.missing.values())
    whole = results is not None and not missing
    return Evaluated(
        settings=settings,
        results=results,
        state=state_of(folder, is_finished=whole),
        missing=missing,
    )


def verdict_of(record: Record) -> str:
    """Return the verdict of a line of items.jsonl."""
    correct = record.get("correct")
    return "undecided" if correct is None else "right" if correct else "wrong"


def samples_page(
    items: Sequence[Record],
    store: StoreBrowser | None,
    key: str,
    *,
    verdict: str = "",
    wanted: str = "",
    page: int = 0,
) -> Samples:
    """Return a page of one key's samples.

    Args:
        verdict: only these; empty for all.
        wanted: only those in whose question, answer, extracted answer or id this text is.
    """
    counts = dict.fromkeys(VERDICTS, 0)
    for record in items:
        counts[verdict_of(record)] += 1
    chosen = [r for r in items if not verdict or verdict_of(r) == verdict]
    if wanted:
        chosen = _with_text(chosen, store, key, wanted.lower())
    first = page * SAMPLES_OF_A_PAGE
    shown = chosen[first : first + SAMPLES_OF_A_PAGE]
    return Samples(samples=joined(shown, store, key), num=len(chosen), counts=counts)


def joined(items: Sequence[Record], store: StoreBrowser | None, key: str) -> list[Sample]:
    """Return graded answers with what the store has of them."""
    ids = list(dict.fromkeys(str(record.get("id")) for record in items))
    places = {} if store is None else store.at_places(key, ids)
    return [
        _sample(record, places.get((str(record.get("id")), _whole(record.get("rollout")) or 0)))
        for record in items
    ]


def _with_text(
    items: Sequence[Record], store: StoreBrowser | None, key: str, text: str
) -> list[Record]:
    found = []
    for start in range(0, len(items), 500):
        part = items[start : start + 500]
        for record, sample in zip(part, joined(part, store, key), strict=True):
            said = (sample.problem_id, sample.question, sample.gold, sample.extracted or "")
            if any(text in one.lower() for one in (*said, sample.answer or "", sample.note)):
                found.append(record)
        if len(found) >= SAMPLES_OF_A_PAGE * 10:
            break
    return found


def _sample(record: Record, brief: Brief | None) -> Sample:
    extracted = record.get("extracted")
    return Sample(
        problem_id=str(record.get("id")),
        rollout=_whole(record.get("rollout")) or 0,
        verdict=verdict_of(record),
        extracted=None if extracted is None else str(extracted),
        note=str(record.get("note") or ""),
        stop_reason=str(record.get("stop_reason") or ""),
        tokens=_whole(record.get("tokens")),
        consultations=_whole(record.get("consultations")) or 0,
        brief=brief,
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


def categories(
    items: Sequence[Record], store: StoreBrowser | None, key: str
) -> tuple[str, list[Category]]:
    """Return the name of what a benchmark's problems are divided by, and its parts; nothing where
    their metadata names none."""
    if store is None or not items or len(items) > _MOST_FOR_CATEGORIES:
        return "", []
    of_problem: dict[str, Mapping[str, object]] = {}
    for problem in store.problems_of_run(key):
        of_problem[problem.id] = problem.metadata
    name = next(
        (
            one
            for one in _CATEGORIES
            if len({str(m[one]) for m in of_problem.values() if one in m}) > 1
        ),
        "",
    )
    if not name:
        return "", []
    found: dict[str, list[bool]] = {}
    for record in items:
        part = str(of_problem.get(str(record.get("id")), {}).get(name, "other"))
        if record.get("correct") is not None:
            found.setdefault(part, []).append(bool(record["correct"]))
    parts = [
        Category(name=part, num=len(right), accuracy=sum(right) / len(right))
        for part, right in sorted(found.items())
    ]
    return name, parts


def compared(a: Path, b: Path) -> tuple[Comparison | None, str]:
    """Return what differs between two evaluations, or why they cannot be compared."""
    from evals.run_folder import RESULTS_FILE, RUN_FILE

    files = [folder / name for folder in (a, b) for name in (RUN_FILE, RESULTS_FILE)]
    return _compared(a, b, tuple(_stamp(file) for file in files))


@lru_cache(maxsize=64)
def _compared(a: Path, b: Path, stamps: object) -> tuple[Comparison | None, str]:
    """Return the same for files as they are: intervals and tests take their time."""
    from evals.compare import compare_runs

    try:
        return compare_runs(str(a), str(b)), ""
    except EapoError as error:
        return None, str(error)
