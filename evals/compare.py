"""Compares two benchmark runs, problem by problem; refuses where their settings differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eapo_agents.errors import BenchmarkError
from evals.metrics import PairedDifference, gained_and_lost, paired_differences
from evals.page import Page, Section
from evals.tables import Table, p_value, percent, points

RUN_FORMAT = 1
RUN_FILE, RESULTS_FILE = "run.json", "results.json"
_SHOWN = 200


def read_run(folder: str | Path) -> dict[str, Any]:
    """Settings and results of a run's folder.

    Raises:
        BenchmarkError: it is no benchmark run, unfinished, or of a newer format.
    """
    folder = Path(folder)
    found: dict[str, Any] = {}
    for name in (RUN_FILE, RESULTS_FILE):
        try:
            found[name] = json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            started = name == RESULTS_FILE
            advice = (
                "run its command again, which goes on where it stopped"
                if started
                else "give the --out folder of an `eapo eval --benchmarks ...`"
            )
            what = "unfinished" if started else "no benchmark run"
            raise BenchmarkError(f"'{folder}' is {what} (it has no {name}): {advice}.") from error
        except (OSError, ValueError) as error:
            raise BenchmarkError(f"'{folder / name}' cannot be read: {error}.") from error
    run = found[RUN_FILE]
    if not isinstance(run, dict) or run.get("format") != RUN_FORMAT:
        raise BenchmarkError(
            f"'{folder / RUN_FILE}' is not of format {RUN_FORMAT}: use the version of eapo-agents "
            "that made it."
        )
    return {"settings": run, "results": found[RESULTS_FILE]}


def differing_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Which of two benchmarks' settings differ, each with both values."""
    return [
        f"{key} ({_short(a.get(key))} and {_short(b.get(key))})"
        for key in sorted(a.keys() | b.keys())
        if a.get(key) != b.get(key)
    ]


def compare_runs(folder_a: str, folder_b: str) -> dict[str, Any]:
    """b - a for every benchmark and mode that both have.

    Raises:
        BenchmarkError: their settings differ, and which; or they have nothing in common.
    """
    a, b = read_run(folder_a), read_run(folder_b)
    settings_a, settings_b = a["settings"]["benchmarks"], b["settings"]["benchmarks"]
    common = [name for name in settings_a if name in settings_b]
    if not common:
        raise BenchmarkError(
            f"'{folder_a}' and '{folder_b}' have no benchmark in common "
            f"({', '.join(settings_a)} and {', '.join(settings_b)})."
        )
    for name in common:
        differing = differing_settings(settings_a[name], settings_b[name])
        if differing:
            raise BenchmarkError(
                f"The two runs of {name} differ in {'; '.join(differing)}: a difference between "
                "them would not be the policies'. Run one of them again with the other's settings."
            )
    sides = {
        key: (before, after)
        for key, after in b["results"]["results"].items()
        if (before := a["results"]["results"].get(key)) and after["benchmark"] in common
    }
    paired = paired_differences(
        {key: (x["per_problem"], y["per_problem"]) for key, (x, y) in sides.items()}
    )
    return {
        "a": {"folder": folder_a, "policy": a["settings"]["policy"]},
        "b": {"folder": folder_b, "policy": b["settings"]["policy"]},
        "benchmarks": {key: _compared(*sides[key], paired[key]) for key in sides},
    }


def _compared(
    before: Mapping[str, Any], after: Mapping[str, Any], paired: PairedDifference
) -> dict[str, Any]:
    gained, lost = gained_and_lost(before["per_problem"], after["per_problem"])
    return {
        "metric": after["metric"],
        "before": before["score"],
        "after": after["score"],
        **paired,
        "gained": gained,
        "lost": lost,
    }


def comparison_page(comparison: Mapping[str, Any]) -> Page:
    """The report for people."""
    benchmarks = comparison["benchmarks"]
    return Page(
        title=f"{comparison['b']['folder']} - {comparison['a']['folder']}",
        sections=[
            Section(table=_table(benchmarks), text=[_METHOD]),
            *(
                Section(heading=f"{key}, {side}", text=[_some(c[side])])
                for key, c in benchmarks.items()
                for side in ("gained", "lost")
                if c[side]
            ),
        ],
    )


_METHOD = (
    "Intervals: bootstrap over problems. p: exact McNemar where every score is right or wrong, "
    "else sign flips. p (Holm) is corrected for all benchmarks of this table."
)


def _table(benchmarks: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        [
            {
                "benchmark": key,
                "metric": c["metric"],
                "n": str(c["n"]),
                "before": percent(c["before"]),
                "after": percent(c["after"]),
                "difference": points(c["difference"], c["ci95"]),
                "test": c["test"],
                "p": p_value(c["p"]),
                "p (Holm)": p_value(c["p_holm"]),
                "gained": str(len(c["gained"])),
                "lost": str(len(c["lost"])),
            }
            for key, c in benchmarks.items()
        ],
        num_text_columns=2,
    )


def _some(ids: Sequence[str]) -> str:
    more = len(ids) - _SHOWN
    return f"{', '.join(ids[:_SHOWN])}{f' and {more} more' if more > 0 else ''}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
