"""Compares two benchmark runs, problem by problem; refuses where their settings differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eapo_agents.errors import BenchmarkError
from evals.metrics import paired_bootstrap

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
    compared = {}
    for key, result in b["results"]["results"].items():
        before = a["results"]["results"].get(key)
        if before is not None and result["benchmark"] in common:
            compared[key] = _compare(before, result)
    return {
        "a": {"folder": folder_a, "policy": a["settings"]["policy"]},
        "b": {"folder": folder_b, "policy": b["settings"]["policy"]},
        "benchmarks": compared,
    }


def _compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    paired = paired_bootstrap(before["per_problem"], after["per_problem"])
    changes = {
        key: (value, after["per_problem"][key]) for key, value in before["per_problem"].items()
    }
    gained = [key for key, (old, new) in changes.items() if old < 0.5 <= new]
    lost = [key for key, (old, new) in changes.items() if new < 0.5 <= old]
    return {
        "metric": after["metric"],
        "before": before["score"],
        "after": after["score"],
        **asdict(paired),
        "gained": gained,
        "lost": lost,
    }


def comparison_markdown(comparison: Mapping[str, Any]) -> str:
    """For people."""
    lines = [
        f"{comparison['b']['folder']} - {comparison['a']['folder']}",
        "",
        "| benchmark | metric | n | before | after | difference | 95% interval | gained | lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, c in comparison["benchmarks"].items():
        low, high = c["ci95"]
        lines.append(
            f"| {key} | {c['metric']} | {c['n']} | {c['before']:.1%} | {c['after']:.1%} "
            f"| {100 * c['difference']:+.1f} points | [{100 * low:+.1f}, {100 * high:+.1f}] "
            f"| {len(c['gained'])} | {len(c['lost'])} |"
        )
    for key, c in comparison["benchmarks"].items():
        for side in ("gained", "lost"):
            if c[side]:
                more = len(c[side]) - _SHOWN
                rest = f" and {more} more" if more > 0 else ""
                lines += ["", f"{key}, {side}: {', '.join(c[side][:_SHOWN])}{rest}"]
    return "\n".join(lines)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
