"""The figures of a study, or of one run: what each arm reached without experts, what it cost, and
which differences between arms are more than chance.

Seeds are the unit: an arm's interval and the paired differences are over them, since problems of
one seed share their policy.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NotRequired, TypedDict

from evals.guards import findings, leak_findings
from evals.metrics import holm, student_interval, student_p

REFERENCES = ("self-exploration", "distillation")
"""Arms that the others are compared with: learning without experts, and imitating them."""
History = Sequence[Mapping[str, float]]


class ShortScore(TypedDict):
    """What a report reads of a score under one condition."""

    score: float
    """Accuracy."""
    asked: NotRequired[float]
    """Share of answers for which an expert was asked."""


class Evaluation(TypedDict):
    """Scores on the way of a training."""

    step: int
    scores: Mapping[str, ShortScore]
    """By condition; the first is the one that is reported: solo, or a baseline graph's."""


class Collected(TypedDict):
    """What the log of a logged run had cost."""

    expert_calls: float
    sampled_tokens: float
    passes: NotRequired[int]
    """How often the history has it."""


class RunResult(TypedDict, total=False):
    """What a finished run leaves."""

    assisted: ShortScore | None
    collected: Collected | None
    leaks: Mapping[str, object]
    seconds: float
    paid_calls: int | None
    """Expert calls of the training by the ledger: a reply that is used again is none. None where
    the ledger is shared with other runs."""


class Run(TypedDict):
    """One run of an arm."""

    arm: str
    seed: int
    history: History
    evals: Sequence[Evaluation]
    result: RunResult | None
    """None until it is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Figures of a run, or their means over an arm's runs; None where nothing was measured.
    Accuracies are without experts where nothing else is said."""

    before: float | None
    """None where nothing was evaluated before the first step."""
    after: float | None
    greedy: float | None
    assisted: float | None
    """With experts, after training."""
    asks: float | None
    """Share of those answers for which an expert was asked."""
    gained_points: float | None
    expert_calls: float | None
    sampled_tokens: float | None
    calls_a_point: float | None
    spread: float | None
    """Share of groups whose rewards differ."""
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures(Figures):
    """One run."""

    seed: int
    finished: bool
    steps: int
    best: float | None
    calls_withheld: float
    expert_tokens: float
    expert_usd: float
    asking_at_the_end: float | None
    curve: list[tuple[int, float]]
    """(step, accuracy) of each evaluation."""
    tokens_at: list[float]
    """Tokens sampled by then."""
    calls_at: list[float]
    """Expert calls made by then."""
    findings: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmFigures(Figures):
    """Means over the seeds that have the figure."""

    ci95: tuple[float, float] | None
    """Of `after`: Student's t over seeds, cut to [0, 1]."""
    worst: float | None
    """The lowest `after`."""
    gap: float | None
    """assisted - after, over the seeds that have both."""
    seeds: list[RunFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanDifference:
    """The mean over seeds of a paired difference, in points."""

    points: float
    ci95: tuple[float, float] | None
    """Student's t over seeds, cut to what is possible; None for one seed or equal differences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDifference(MeanDifference):
    """An arm's accuracy after training less a reference's."""

    arm: str
    against: str
    seeds: int
    p: float | None
    """Of the paired t test over seeds; None where there is no interval."""
    p_holm: float | None = None
    """p, corrected for all differences of the report."""
    at_equal_tokens: MeanDifference | None
    """Where both had sampled as many tokens; None where one sampled none."""
    at_equal_calls: MeanDifference | None
    """Where both had made as many expert calls; None where one made none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The report's figures."""

    arms: dict[str, ArmFigures]
    differences: list[ArmDifference]


def summarise(runs: Sequence[Run]) -> Summary:
    """The figures of runs, by arm."""
    by_arm: dict[str, list[RunFigures]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], []).append(run_figures(run))
    return Summary(
        arms={arm: arm_figures(figures) for arm, figures in by_arm.items()},
        differences=_differences(by_arm),
    )


def run_figures(run: Run) -> RunFigures:
    """Return the figures of one run."""
    history, evals = run["history"], run["evals"]
    result: RunResult = run["result"] or {}
    curve = [(int(e["step"]), headline(e)) for e in evals]
    collected, assisted = result.get("collected"), result.get("assisted")
    tokens_at = _spent(curve, history, "sampled_tokens", collected and collected["sampled_tokens"])
    calls_at = _spent(curve, history, "experts/calls", collected and collected["expert_calls"])
    # all of it, also what was spent after the last evaluation, or where there was none
    spent = collected or {
        "expert_calls": _total(history, "experts/calls"),
        "sampled_tokens": _total(history, "sampled_tokens"),
    }
    calls = float(spent["expert_calls"])
    paid = result.get("paid_calls")
    if paid is not None:  # a step's figures count replies that are used again
        calls = float(paid)
        calls_at = [min(calls, at) for at in calls_at]
    passes = collected.get("passes", 1) if collected else 1
    # a training run is evaluated for the first time after some steps: that is no "before"
    before = curve[0][1] if curve and curve[0][0] == 0 else None
    gained = None if before is None else 100 * (curve[-1][1] - before)
    return RunFigures(
        seed=run["seed"],
        finished=run["result"] is not None,
        steps=int(history[-1]["step"]) if history else 0,
        before=before,
        after=curve[-1][1] if curve else None,
        best=max((accuracy for _, accuracy in curve), default=None),
        greedy=_greedy(evals[-1]) if evals else None,
        assisted=assisted["score"] if assisted else None,
        asks=assisted.get("asked") if assisted else None,
        gained_points=gained,
        expert_calls=calls,
        calls_withheld=_total(history, "experts/withheld") / passes,
        expert_tokens=_total(history, "expert_tokens") / passes,
        expert_usd=_total(history, "expert_usd") / passes,
        sampled_tokens=float(spent["sampled_tokens"]),
        calls_a_point=calls / gained if gained and gained > 0 and calls else None,
        spread=_mean([step.get("nonzero_variance_groups") for step in history]),
        asking_at_the_end=_mean([step.get("consultation_rate") for step in history[-10:]]),
        seconds=result.get("seconds"),
        curve=curve,
        tokens_at=tokens_at,
        calls_at=calls_at,
        findings=[*findings(history, evals, ended=True), *leak_findings(result.get("leaks") or {})],
    )


def headline(evaluation: Evaluation) -> float:
    """Return the accuracy that is reported of an evaluation."""
    return next(iter(evaluation["scores"].values()))["score"]


def _greedy(evaluation: Evaluation) -> float | None:
    found = [s["score"] for name, s in evaluation["scores"].items() if name.endswith("greedy")]
    return found[0] if found else None


def _spent(
    curve: Sequence[tuple[int, float]], history: History, name: str, collected: float | None
) -> list[float]:
    """What had been spent at each evaluation. The history of a logged run has what its collection
    cost again in each pass; all of it was spent before the first step."""
    if collected is not None:
        return [float(collected) if step else 0.0 for step, _ in curve]
    return [_total([h for h in history if h["step"] <= step], name) for step, _ in curve]


def arm_figures(runs: Sequence[RunFigures]) -> ArmFigures:
    """Return the means of an arm's runs."""
    after = [run.after for run in runs if run.after is not None]
    means = {f.name: _mean([getattr(run, f.name) for run in runs]) for f in fields(Figures)}
    gaps = [
        run.assisted - run.after
        for run in runs
        if run.assisted is not None and run.after is not None
    ]
    return ArmFigures(
        **means,
        ci95=student_interval(after),
        worst=min(after, default=None),
        gap=_mean(gaps),
        seeds=list(runs),
    )


def _differences(by_arm: Mapping[str, Sequence[RunFigures]]) -> list[ArmDifference]:
    """Every arm against the references, paired by seed; where there is none of them, against the
    first."""
    arms = list(by_arm)
    references = [arm for arm in REFERENCES if arm in by_arm] or arms[:1]
    found = [
        difference
        for number, reference in enumerate(references)
        for arm in arms
        if arm != reference and arm not in references[:number]
        if (difference := paired_difference(by_arm, arm, reference)) is not None
    ]
    corrected = holm({number: d.p for number, d in enumerate(found) if d.p is not None})
    return [replace(d, p_holm=corrected.get(number)) for number, d in enumerate(found)]


def paired_difference(
    by_arm: Mapping[str, Sequence[RunFigures]], arm: str, reference: str
) -> ArmDifference | None:
    """Return an arm's accuracy less a reference's, paired by seed and not corrected; None where no
    seed has both."""
    theirs_of = {run.seed: run for run in by_arm[reference] if run.curve}
    pairs = [
        (ours, theirs_of[ours.seed])
        for ours in by_arm[arm]
        if ours.curve and ours.seed in theirs_of
    ]
    if not pairs:
        return None
    differences = [ours.curve[-1][1] - theirs.curve[-1][1] for ours, theirs in pairs]
    mean = _in_points(differences)
    return ArmDifference(
        arm=arm,
        against=reference,
        points=mean.points,
        ci95=mean.ci95,
        seeds=len(pairs),
        p=student_p(differences),
        at_equal_tokens=_at_equal(pairs, lambda run: run.tokens_at),
        at_equal_calls=_at_equal(pairs, lambda run: run.calls_at),
    )


def _in_points(differences: Sequence[float]) -> MeanDifference:
    ci95 = student_interval(differences, -1.0, 1.0)
    return MeanDifference(
        points=100 * statistics.fmean(differences),
        ci95=(100 * ci95[0], 100 * ci95[1]) if ci95 else None,
    )


def _at_equal(
    pairs: Sequence[tuple[RunFigures, RunFigures]], spent_at: Callable[[RunFigures], list[float]]
) -> MeanDifference | None:
    """The difference where both had spent what the cheaper of the two spent in all; None where one
    of them spent nothing."""
    differences = []
    for ours, theirs in pairs:
        most = min(spent_at(ours)[-1], spent_at(theirs)[-1])
        if not most:
            return None
        # each at its last evaluation before more than that was spent
        reached = [
            [
                accuracy
                for (_, accuracy), at in zip(run.curve, spent_at(run), strict=True)
                if at <= most
            ]
            for run in (ours, theirs)
        ]
        differences.append(reached[0][-1] - reached[1][-1])
    return _in_points(differences)


def _total(history: History, name: str) -> float:
    return sum(step.get(name, 0.0) for step in history)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
