"""The plots of all reports, drawn with the `bench` extra; without it reports have none."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from evals.page import Page, Section

if TYPE_CHECKING:
    import altair

    from evals.results import Score
    from evals.study import Run, Summary

Point = Mapping[str, str | float]
_BIN = 20
"""Steps that one point of a training curve stands for, at most: a curve has about that many."""


def benchmark_plots(results: Mapping[str, Score]) -> list[Section]:
    """Scores with their intervals; where there are several samples, what more of them give."""
    return _drawn(lambda: _benchmark_charts(results))


def study_plots(summary: Summary, runs: Sequence[Run]) -> list[Section]:
    """What the arms reached, by steps and by calls, and how their training went."""
    evaluations = evaluation_points(summary)
    arms = list(summary.arms)
    wanted = [
        ("Accuracy without experts", evaluations, "step"),
        ("Accuracy without experts, by expert calls", evaluations, "expert calls"),
        *(
            (heading, _curve(runs, name), "step")
            for heading, name in (
                ("Rollouts with experts: accuracy", "helped/accuracy"),
                ("Rollouts that ask", "consultation_rate"),
                ("Acceptance probability (rho)", "rho"),
                ("Groups whose rewards differ", "nonzero_variance_groups"),
            )
        ),
    ]
    return _drawn(
        lambda: ((heading, _curves(points, arms, x)) for heading, points, x in wanted if points)
    )


def write_plots(page: Page, folder: Path, form: str) -> list[Path]:
    """Write every plot of a report into the folder as files, on white; return them.

    Args:
        form: `svg` or `png`, which has twice the pixels of the page.

    Raises:
        UsageError: the `bench` extra is not installed, or the folder cannot be written.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise UsageError(
            "Plots are drawn with altair and vl-convert, which are not installed: "
            "pip install 'eapo-agents[bench]'."
        ) from error
    written = []
    for name, svg in page.plots().items():
        # on a page the plot has the page's paper, in a file it has none
        on_white = re.sub(
            r"(<svg[^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', svg, count=1
        )
        data = vl_convert.svg_to_png(on_white, scale=2) if form == "png" else on_white.encode()
        file = folder / f"{name}.{form}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        except OSError as error:
            raise UsageError(
                f"The plot '{file}' cannot be written ({error.strerror}): give another folder."
            ) from error
        written.append(file)
    return written


def _drawn(charts: Callable[[], Iterator[tuple[str, altair.TopLevelMixin]]]) -> list[Section]:
    """Every chart as a section; none where the `bench` extra is not installed."""
    try:
        import altair  # noqa: F401
        import vl_convert
    except ImportError:
        return []
    # the page gives the colours of text and lines, which a dark screen changes
    look = {
        "background": None,
        "view": {"stroke": None},
        "axis": {"labelFontSize": 12, "titleFontSize": 12},
        "legend": {"orient": "bottom", "columns": 3, "labelFontSize": 12, "labelLimit": 220},
    }
    return [
        Section(
            heading=heading, svg=vl_convert.vegalite_to_svg({**chart.to_dict(), "config": look})
        )
        for heading, chart in charts()
    ]


def _benchmark_charts(
    results: Mapping[str, Score],
) -> Iterator[tuple[str, altair.TopLevelMixin]]:
    import altair

    scores = [
        {"run": key, "score": r.score, "low": r.ci95[0], "high": r.ci95[1]}
        for key, r in results.items()
    ]
    base = altair.Chart(altair.Data(values=scores)).encode(
        y=altair.Y("run:N", title=None, sort=None, axis=altair.Axis(labelLimit=220))
    )
    x = altair.X("score:Q", title="score, with 95% interval", scale=altair.Scale(domain=[0, 1]))
    bars = base.mark_bar(color="#4c8bc4").encode(x=x.axis(format="%"))
    whiskers = base.mark_rule(strokeWidth=2, color="#8a94a3").encode(x="low:Q", x2="high:Q")
    yield "Scores", (bars + whiskers).properties(width=420, height=28 * len(results))
    sampled = {key: (r, r.pass_at) for key, r in results.items() if r.pass_at is not None}
    if not sampled:
        return
    colour = altair.Color("run:N", title=None)
    curves = [
        {"run": key, "k": int(k), "pass@k": value}
        for key, (_, pass_at) in sampled.items()
        for k, value in pass_at.items()
    ]
    k_axis = altair.Axis(
        values=sorted({int(k) for _, pass_at in sampled.values() for k in pass_at})
    )
    yield (
        "pass@k",
        altair.Chart(altair.Data(values=curves))
        .mark_line(point=True)
        .encode(
            x=altair.X("k:Q", scale=altair.Scale(type="log", base=2), axis=k_axis),
            y=altair.Y("pass@k:Q", axis=altair.Axis(format="%")),
            color=colour,
        )
        .properties(width=420, height=200),
    )
    shares = [
        {"run": key, "share": share}
        for key, (r, _) in sampled.items()
        for share in r.per_problem.values()
    ]
    share_axis = altair.Axis(title="share of right samples", format="%")
    yield (
        "Share of right answers of each problem",
        altair.Chart(altair.Data(values=shares))
        .mark_bar(opacity=0.7)
        .encode(
            x=altair.X("share:Q", bin=altair.Bin(maxbins=16), axis=share_axis),
            y=altair.Y("count()", title="problems", stack=None),
            color=colour,
        )
        .properties(width=420, height=200),
    )


def evaluation_points(summary: Summary) -> list[Point]:
    """A point for each evaluation of each run, with the expert calls it had cost by then."""
    return [
        {
            "arm": arm,
            "seed": figures.seed,
            "step": step,
            "expert calls": calls,
            "value": accuracy,
        }
        for arm, of_arm in summary.arms.items()
        for figures in of_arm.seeds
        for (step, accuracy), calls in zip(figures.curve, figures.calls_at, strict=True)
    ]


def _curve(runs: Sequence[Run], name: str) -> list[Point]:
    points: list[Point] = []
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


def _curves(points: Sequence[Point], arms: Sequence[str], x: str) -> altair.TopLevelMixin:
    """A thin line for each seed, a thick one for the mean, and a band from the worst to the best
    where seeds share their steps. An arm has the same colour in every plot."""
    import altair

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
    y = altair.Y("value:Q", title=None, axis=altair.Axis(format="%"))
    lines = base.encode(y=y, detail="seed:N")
    if x != "step":
        return lines.mark_line(strokeWidth=2, opacity=0.8).properties(width=420, height=240)
    lines = lines.mark_line(strokeWidth=1, opacity=0.45)
    band = base.mark_area(opacity=0.12).encode(
        y=altair.Y("min(value):Q", title=None), y2=altair.Y2("max(value):Q")
    )
    mean = base.mark_line(strokeWidth=3).encode(y=altair.Y("mean(value):Q", title=None))
    return (band + lines + mean).properties(width=420, height=240)
