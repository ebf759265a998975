"""Plots of a study, as SVG."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

_BIN = 20
"""Steps that one point of a training curve stands for, at most: a curve has about that many."""


def plots(summary: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """(heading, SVG); none where the `bench` extra is not installed."""
    try:
        import altair
        import vl_convert
    except ImportError:
        return []
    evaluations = evaluation_points(summary)
    arms = list(summary["arms"])
    wanted = [
        ("Accuracy alone", evaluations, "accuracy", "step"),
        ("Accuracy alone, by expert calls", evaluations, "accuracy", "expert calls"),
        ("Rollouts with experts: accuracy", _curve(runs, "helped/accuracy"), "value", "step"),
        ("Rollouts that ask", _curve(runs, "consultation_rate"), "value", "step"),
        ("rho", _curve(runs, "rho"), "value", "step"),
        (
            "Groups with a spread of reward",
            _curve(runs, "nonzero_variance_groups"),
            "value",
            "step",
        ),
    ]
    return [
        (heading, vl_convert.vegalite_to_svg(_chart(altair, points, arms, y, x).to_json()))
        for heading, points, y, x in wanted
        if points
    ]


def evaluation_points(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A point for each evaluation of each run, with the expert calls it had cost by then."""
    return [
        {
            "arm": arm,
            "seed": figures["seed"],
            "step": step,
            "expert calls": calls,
            "accuracy": accuracy,
        }
        for arm, of_arm in summary["arms"].items()
        for figures in of_arm["seeds"]
        for (step, accuracy), calls in zip(figures["curve"], figures["calls_at"], strict=True)
    ]


def _curve(runs: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    points = []
    for run in runs:
        history = run["history"]
        width = max(1, len(history) // _BIN)
        for start in range(0, len(history), width):
            part = [step[name] for step in history[start : start + width] if name in step]
            if part:
                points.append(
                    {
                        "arm": run["arm"],
                        "seed": run["seed"],
                        "step": history[start]["step"],
                        "value": statistics.fmean(part),
                    }
                )
    return points


def _chart(
    altair: Any, points: Sequence[Mapping[str, Any]], arms: Sequence[str], y: str, x: str
) -> Any:
    """A thin line for each seed, a thick one for the mean, and a band from the worst to the best
    where seeds share their steps. An arm has the same colour in every plot."""
    base = altair.Chart(altair.Data(values=list(points))).encode(
        x=altair.X(f"{x}:Q", title=x),
        color=altair.Color(
            "arm:N",
            title=None,
            # of all plots, also where an arm has no points
            scale=altair.Scale(
                domain=list(arms), scheme="tableau10" if len(arms) <= 10 else "tableau20"
            ),
            legend=altair.Legend(symbolOpacity=1, symbolStrokeWidth=3),  # not the band's
        ),
    )
    y_axis = altair.Y(f"{y}:Q", title=None, axis=altair.Axis(format="%"))
    lines = base.encode(y=y_axis, detail="seed:N")
    if x != "step":
        return lines.mark_line(strokeWidth=2, opacity=0.8).properties(width=480, height=260)
    lines = lines.mark_line(strokeWidth=1, opacity=0.45)
    band = base.mark_area(opacity=0.12).encode(
        y=altair.Y(f"min({y}):Q", title=None), y2=altair.Y2(f"max({y}):Q")
    )
    mean = base.mark_line(strokeWidth=3).encode(y=altair.Y(f"mean({y}):Q", title=None))
    return (band + lines + mean).properties(width=480, height=260)
