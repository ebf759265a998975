"""Curves of training runs as figures for inline SVG. The templates draw them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from eapo_agents.runs.view.training import Training, interval_of, is_figure

WIDTH, HEIGHT = 420, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 24
_MOST_POINTS = 400
_SMOOTH_FROM = 24
"""Steps from which a curve also shows its mean over a window."""
EVALUATED = "evaluated"
PART = "reward/"
"""Begins the names of a reward's parts."""
Unit = Literal["share", "number"]
_KNOWN: Mapping[str, tuple[str, Unit, str]] = {
    EVALUATED: ("Accuracy, evaluated", "share", "tool-free, held-out problems, 95% interval"),
    "solo/accuracy": ("Accuracy of solo rollouts", "share", "without experts, in training"),
    "helped/accuracy": ("Accuracy with experts", "share", "rollouts that may ask"),
    "reward": ("Reward", "number", "mean of the scored rollouts"),
    "consultation_rate": ("Asking", "share", "rollouts that ask an expert"),
    "rho": ("Acceptance probability (rho)", "share", "of a reply"),
    "experts/calls": ("Expert calls", "number", "paid for, in a step"),
    "experts/withheld": ("Withheld replies", "number", "in a step, not paid for"),
    "nonzero_variance_groups": ("Groups whose rewards differ", "share", "in a step"),
    "entropy": ("Entropy", "number", "nats a token"),
    "train_inference_mismatch": ("Train/inference mismatch", "number", "mean |logprob gap|"),
    "unscored": ("Unscored rollouts", "number", "in a step"),
    "copied": ("Copied replies", "share", "of the helped answers"),
    "experts/failed": ("Failed calls", "number", "in a step"),
    "expert_tokens": ("Expert tokens", "number", "in a step"),
    "train_inference_mismatch_max": ("Largest mismatch", "number", "|logprob gap| of a token"),
    "left_out/tokens": ("Tokens left out", "number", "another model's or temperature's"),
    "left_out/helped_answers": ("Helped answers left out", "number", "help is not apart"),
    "sampled_tokens": ("Sampled tokens", "number", "in a step"),
    "expert_usd": ("Expert cost", "number", "US dollars in a step"),
}
_ALWAYS = (EVALUATED, "solo/accuracy", "helped/accuracy", "reward", "consultation_rate")
"""Drawn also where all values are 0."""
_HIDDEN = {
    "step",
    "rollouts",
    "solo/rollouts",
    "helped/rollouts",
    "accuracy",
    "experts/accepted",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A mark of an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A value that is drawn as a dot."""

    x: float
    y: float
    low: float | None
    """Where its interval ends."""
    high: float | None
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run's curve."""

    colour: int
    path: str
    smooth: str
    """The curve's mean over a window; empty where there are few steps."""
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A strip over a step, that tells its value and leads to it."""

    step: int
    x: float
    width: float
    dot: float | None
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One figure of one or several runs."""

    name: str
    title: str
    subtitle: str
    latest: str
    """The first run's last value."""
    lines: Sequence[Line]
    y_ticks: Sequence[Tick]
    x_ticks: Sequence[Tick]
    hits: Sequence[Hit]
    """Of the first run."""


def charts_of(runs: Sequence[tuple[str, Training]]) -> list[Chart]:
    """Return a chart for each figure that the first run has. The others are laid over it."""
    first = runs[0][1]
    have = {name for step in first.history for name in step if is_figure(step[name])}
    have |= {EVALUATED} if first.evals else set()
    known = [name for name in _KNOWN if name in have]
    more = sorted(have - set(_KNOWN) - _HIDDEN)
    return [
        chart
        for name in [*known, *more]
        if (chart := _chart(name, runs)) is not None
        if name in _ALWAYS or any(value for _, value, _ in _values(name, first))
    ]


def facts_of(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """Return the titles and texts of a step's figures that are known, those that are 0 only where
    that tells something."""
    found = []
    for name, (title, unit, _) in _KNOWN.items():
        value = figures.get(name)
        if value is not None and is_figure(value) and (value or name in _ALWAYS):
            found.append((title, f"{value:.1%}" if unit == "share" else short(float(value))))
    for name, value in figures.items():
        if name.startswith(PART) and is_figure(value):
            found.append((f"Reward {name.removeprefix(PART)}", short(float(value))))
    return found


def _values(name: str, run: Training) -> list[tuple[int, float, tuple[float, float] | None]]:
    """Return (step, value, interval)."""
    if name != EVALUATED:
        return [
            (int(step["step"]), float(step[name]), None)
            for step in run.history
            if is_figure(step.get(name))
        ]
    found = []
    for evaluation in run.evals:
        score: Mapping[str, object] = next(iter(evaluation["scores"].values()), {})
        value = score.get("score")
        if isinstance(value, int | float):
            bounds = interval_of(score.get("ci95"))
            found.append((int(evaluation["step"]), float(value), bounds))
    return found


def _chart(name: str, runs: Sequence[tuple[str, Training]]) -> Chart | None:
    from evals.guards import healthy_range

    is_part = name.startswith(PART)
    other = f"Reward {name.removeprefix(PART)}" if is_part else name
    told = "mean of this part, not weighed" if is_part else ""
    title, unit, subtitle = _KNOWN.get(name, (other, "number", told))
    values = [_values(name, run) for _, run in runs]
    every = [value for found in values for value in found]
    if not every or not values[0]:
        return None
    last_step = max(step for step, *_ in every)
    scale = _Scale.over(
        [v for _, v, _ in every] + [b for *_, ci in every for b in ci or ()],
        first=min(step for step, *_ in every),
        last=last_step,
        unit=unit,
    )
    lines = [_line(index, found, scale, name) for index, found in enumerate(values) if found]
    return Chart(
        name=name,
        title=title,
        subtitle="; ".join(text for text in (subtitle, healthy_range(name)) if text),
        latest=scale.text(values[0][-1][1]),
        lines=lines,
        y_ticks=[Tick(at=round(scale.y(v), 1), label=scale.text(v, axis=True)) for v in scale.ys],
        x_ticks=[Tick(at=round(scale.x(s), 1), label=f"{s:,}") for s in scale.steps],
        hits=_hits(values[0], scale),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scale:
    """Places of steps and values."""

    first: int
    last: int
    low: float
    high: float
    ys: Sequence[float]
    unit: Unit

    @classmethod
    def over(cls, values: Sequence[float], *, first: int, last: int, unit: Unit) -> _Scale:
        if unit == "share":
            top = next(one for one in (0.1, 0.2, 0.4, 1.0) if one >= min(1.0, max(values)))
            ys = [top * n / 4 for n in range(5)]
        else:
            low, high = min(0.0, *values), max(values)
            size = _nice((high - low) / 4 or 1.0)
            begin = math.floor(low / size)
            end = max(begin + 1, math.ceil(round(high / size, 9)))
            ys = [size * n for n in range(begin, end + 1)]
        return cls(first=first, last=last, low=ys[0], high=ys[-1], ys=ys, unit=unit)

    @property
    def steps(self) -> list[int]:
        size = max(1, round(_nice((self.last - self.first) / 5 or 1.0)))
        begin = math.ceil(self.first / size) * size
        found = list(range(begin, self.last + 1, size))
        return found or [self.last]

    def x(self, step: int) -> float:
        wide = WIDTH - _LEFT - _RIGHT
        if self.last == self.first:
            return _LEFT + wide / 2
        return _LEFT + wide * (step - self.first) / (self.last - self.first)

    def y(self, value: float) -> float:
        high = HEIGHT - _TOP - _BOTTOM
        share = (value - self.low) / (self.high - self.low)
        return _TOP + high * (1 - max(0.0, min(1.0, share)))

    def text(self, value: float, *, axis: bool = False) -> str:
        if self.unit == "share":
            return f"{100 * value:.3g}%" if axis else f"{value:.1%}"
        return short(value)


def short(value: float) -> str:
    """Return a number in few characters, such as `1,204`, `0.375` or `2.1e-06`."""
    size = abs(value)
    if size and size < 1e-3:
        return f"{value:.1e}"
    if size >= 1e6:
        return f"{value / 1e6:,.1f}M"
    return f"{value:,.0f}" if value == int(value) or size >= 1000 else f"{value:.3g}"


def _nice(size: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not less than `size`."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= size * (1 - 1e-9))


def _line(
    colour: int,
    values: Sequence[tuple[int, float, tuple[float, float] | None]],
    scale: _Scale,
    name: str,
) -> Line:
    thinned = _thinned([(step, value) for step, value, _ in values])
    points = []
    if name == EVALUATED or len(values) == 1:
        points = [
            Point(
                x=round(scale.x(step), 1),
                y=round(scale.y(value), 1),
                low=None if ci is None else round(scale.y(ci[0]), 1),
                high=None if ci is None else round(scale.y(ci[1]), 1),
                told=_told(step, value, ci, scale),
            )
            for step, value, ci in values
        ]
    smooth = _path(_smoothed(thinned), scale) if len(thinned) >= _SMOOTH_FROM else ""
    return Line(colour=colour % 8, path=_path(thinned, scale), smooth=smooth, points=points)


def _told(step: int, value: float, ci: tuple[float, float] | None, scale: _Scale) -> str:
    bounds = f" [{scale.text(ci[0])}, {scale.text(ci[1])}]" if ci else ""
    return f"step {step}: {scale.text(value)}{bounds}"


def _thinned(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return at most so many points as can be told apart: means of neighbours."""
    width = math.ceil(len(values) / _MOST_POINTS)
    parts = [values[start : start + width] for start in range(0, len(values), width)]
    return [(part[0][0], sum(v for _, v in part) / len(part)) for part in parts]


def _smoothed(values: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    half = max(2, len(values) // 20)
    found = []
    for index, (step, _) in enumerate(values):
        part = values[max(0, index - half) : index + half + 1]
        found.append((step, sum(v for _, v in part) / len(part)))
    return found


def _path(values: Sequence[tuple[int, float]], scale: _Scale) -> str:
    return " ".join(
        f"{'L' if index else 'M'}{scale.x(step):.1f} {scale.y(value):.1f}"
        for index, (step, value) in enumerate(values)
    )


def _hits(
    values: Sequence[tuple[int, float, tuple[float, float] | None]], scale: _Scale
) -> list[Hit]:
    stride = math.ceil(len(values) / _MOST_POINTS)
    chosen = values[::stride]
    width = (WIDTH - _LEFT - _RIGHT) / max(1, len(chosen) - 1)
    return [
        Hit(
            step=step,
            x=round(scale.x(step) - width / 2, 1),
            width=round(width, 1),
            dot=round(scale.y(value), 1),
            told=_told(step, value, ci, scale),
        )
        for step, value, ci in chosen
    ]
