"""Compares two evaluations, problem by problem; refuses where their settings differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import PolicyVersion
from evals.metrics import PairedDifference, gained_and_lost, paired_differences
from evals.page import Page, Section
from evals.results import Score
from evals.run_folder import Results, ResultSettings, read_results, read_settings
from evals.tables import Table, p_value, percent, points

_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One benchmark under one condition, before and after."""

    metric: str
    before: float
    after: float
    paired: PairedDifference
    gained: Sequence[str]
    """Problems that only `after` has right."""
    lost: Sequence[str]

    def to_json(self) -> dict[str, object]:
        """Return it as one object."""
        whole = asdict(self)
        return {**whole, **whole.pop("paired")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of two evaluations."""

    folder: str
    policy: PolicyVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """b - a for every result that both have."""

    a: Side
    b: Side
    benchmarks: Mapping[str, Compared]
    """By key, such as `gsm8k solo`."""

    def to_json(self) -> dict[str, object]:
        """Return it as one object."""
        return {
            "a": asdict(self.a),
            "b": asdict(self.b),
            "benchmarks": {key: c.to_json() for key, c in self.benchmarks.items()},
        }


def compare_runs(folder_a: str, folder_b: str) -> Comparison:
    """Compare two folders.

    Raises:
        BenchmarkError: their settings differ, and which; they have nothing in common; one of them
        is not whole.
    """
    settings = [read_settings(Path(folder)).results for folder in (folder_a, folder_b)]
    common = comparable(*settings, folders=(folder_a, folder_b))
    a, b = (_whole(folder, common) for folder in (folder_a, folder_b))
    paired = paired_differences(
        {key: (a.results[key].per_problem, b.results[key].per_problem) for key in common}
    )
    return Comparison(
        a=Side(folder=folder_a, policy=a.policy),
        b=Side(folder=folder_b, policy=b.policy),
        benchmarks={key: _compared(a.results[key], b.results[key], paired[key]) for key in common},
    )


def comparable(
    a: Mapping[str, ResultSettings], b: Mapping[str, ResultSettings], *, folders: tuple[str, str]
) -> list[str]:
    """Return the keys that both have.

    Raises:
        BenchmarkError: their settings differ, and which; or they have nothing in common.
    """
    common = [key for key in b if key in a]
    if not common:
        raise BenchmarkError(
            f"'{folders[0]}' and '{folders[1]}' have no benchmark and condition in common "
            f"({', '.join(a)} and {', '.join(b)})."
        )
    for key in common:
        if differing := a[key].differences(b[key]):
            raise BenchmarkError(
                f"The two runs of {key} differ in {'; '.join(differing)}: a difference between "
                "them would not be the policies'. Run one of them again with the other's settings."
            )
    return common


def _whole(folder: str, keys: Sequence[str]) -> Results:
    found = read_results(Path(folder))
    lacking = [k for k in keys if found is None or k in found.missing or k not in found.results]
    if found is None or lacking:
        raise BenchmarkError(
            f"'{folder}' is unfinished (answers are missing: {', '.join(lacking)}): run its "
            "command again, which continues where it stopped."
        )
    return found


def _compared(before: Score, after: Score, paired: PairedDifference) -> Compared:
    gained, lost = gained_and_lost(before.per_problem, after.per_problem)
    return Compared(
        metric=after.metric,
        before=before.score,
        after=after.score,
        paired=paired,
        gained=gained,
        lost=lost,
    )


def comparison_page(comparison: Comparison) -> Page:
    """Return the comparison for people."""
    return Page(
        title=f"{comparison.b.folder} - {comparison.a.folder}",
        sections=[
            Section(table=_table(comparison.benchmarks), text=[_METHOD]),
            *(
                Section(heading=f"{key}, {side}", text=[_some(ids)])
                for key, c in comparison.benchmarks.items()
                for side, ids in (("gained", c.gained), ("lost", c.lost))
                if ids
            ),
        ],
    )


_METHOD = (
    "Intervals: bootstrap over problems. p: exact McNemar where every score is right or wrong, "
    "else sign flips. p (Holm) is corrected for all benchmarks of this table."
)


def _table(benchmarks: Mapping[str, Compared]) -> Table:
    return Table(
        [
            {
                "benchmark": key,
                "metric": c.metric,
                "n": str(c.paired["n"]),
                "before": percent(c.before),
                "after": percent(c.after),
                "difference": points(c.paired["difference"], c.paired["ci95"]),
                "test": c.paired["test"],
                "p": p_value(c.paired["p"]),
                "p (Holm)": p_value(c.paired["p_holm"]),
                "gained": str(len(c.gained)),
                "lost": str(len(c.lost)),
            }
            for key, c in benchmarks.items()
        ],
        num_text_columns=2,
    )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - _SHOWN
    return f"{', '.join(ids[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"
