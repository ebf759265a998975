"""The demo's report: what help in training was worth without help, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from evals.metrics import PairedDifference, paired_differences
from evals.page import Page, Section
from evals.tables import NONE, Table, difference_text, number, share


class ShortScore(TypedDict):
    """A score under one condition."""

    score: float
    ci95: tuple[float, float]
    n: int
    samples: int
    temperature: float
    formatted: float


class FullScore(ShortScore):
    """A score with what it was made of."""

    sampled_tokens: int
    per_problem: dict[str, float]


class Phase(TypedDict, total=False):
    """What a phase of the demo leaves: its seconds, and the figures of its kind."""

    seconds: float
    scores: dict[str, FullScore]
    """By condition: solo and, where the recipe asks for it, greedy."""
    episodes: int
    expert_calls: int
    expert_calls_withheld: int
    sampled_tokens: int
    history: Sequence[Mapping[str, float]]
    policy: str
    """Folder of the weights that a training left, under the demo's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """Everything in one object."""

    model: str
    recipe: str
    seed: int
    base_examples: int
    """Shown to the base model before each problem."""
    warm_start_episodes: int
    scores: dict[str, dict[str, ShortScore]]
    """base, before or after -> solo or, where the recipe asks for it, greedy."""
    differences: dict[str, PairedDifference]
    """Such as `after - before, solo`."""
    experts: dict[str, int]
    tokens: dict[str, int]
    """Sampled, by what for."""
    seconds: dict[str, float]
    """By phase, and in all."""
    steps: list[Mapping[str, float | str]]
    """The figures of each training step, with its phase."""


def demo_report(
    phases: Mapping[str, Phase], *, model: str, recipe: str, seed: int, base_examples: int
) -> DemoReport:
    """The report of finished phases."""
    live, collect = phases["train_live"]["history"], phases["collect"]
    evaluated = {name: phases[name]["scores"] for name in ("base", "before", "after")}
    seconds = {name: phase["seconds"] for name, phase in phases.items()}
    return DemoReport(
        model=model,
        recipe=recipe,
        seed=seed,
        base_examples=base_examples,
        warm_start_episodes=phases["warm_start"]["episodes"],
        scores={
            name: {condition: _short(score) for condition, score in scores.items()}
            for name, scores in evaluated.items()
        },
        differences=paired_differences(
            {
                f"after - {name}, {condition}": (
                    evaluated[name][condition]["per_problem"],
                    score["per_problem"],
                )
                for name in ("before", "base")
                for condition, score in evaluated["after"].items()
            }
        ),
        experts={
            "calls": collect["expert_calls"] + _total(live, "experts/calls"),
            "withheld": collect["expert_calls_withheld"] + _total(live, "experts/withheld"),
        },
        tokens={
            "evaluation": sum(
                score["sampled_tokens"]
                for scores in evaluated.values()
                for score in scores.values()
            ),
            "collect": collect["sampled_tokens"],
            "train_live": _total(live, "sampled_tokens"),
        },
        seconds={"total": sum(seconds.values()), **seconds},
        steps=[
            {"phase": phase, **step}
            for phase in ("train_logged", "train_live")
            for step in phases[phase]["history"]
        ],
    )


def demo_page(report: DemoReport) -> Page:
    """The report for people."""
    tokens = ", ".join(f"{name} {number(count)}" for name, count in report.tokens.items())
    return Page(
        title=f"EAPO demo: {report.model}, recipe {report.recipe}, seed {report.seed}",
        subtitle="Accuracy on held-out problems without experts, 95% intervals in brackets.",
        sections=[
            Section(table=_score_table(report)),
            Section(
                heading="Paired differences",
                bullets=[f"{key}: {difference_text(d)}" for key, d in report.differences.items()],
            ),
            Section(
                heading="Cost",
                bullets=[
                    f"The warm start taught the formats with {report.warm_start_episodes} "
                    "scripted episodes. The warm-started policy is the 'before'.",
                    f"Expert calls: {number(report.experts['calls'])} made, "
                    f"{number(report.experts['withheld'])} withheld before the call.",
                    f"Sampled tokens: {tokens}.",
                ],
                table=Table(
                    [{"phase": k, "seconds": number(s)} for k, s in report.seconds.items()]
                ),
            ),
            Section(heading="Training steps", table=_step_table(report.steps)),
        ],
    )


def _short(score: FullScore) -> ShortScore:
    return ShortScore(
        score=score["score"],
        ci95=score["ci95"],
        n=score["n"],
        samples=score["samples"],
        temperature=score["temperature"],
        formatted=score["formatted"],
    )


def _total(steps: Sequence[Mapping[str, float]], name: str) -> int:
    return round(sum(step[name] for step in steps))


def _score_table(report: DemoReport) -> Table:
    policies = {
        "base": f"base model, {report.base_examples} examples shown",
        "before": "before (warm-started)",
        "after": "after EAPO",
    }
    return Table(
        [
            {
                "policy": label,
                "n": str(next(iter(report.scores[name].values()))["n"]),
                **{
                    condition: share(s["score"], s["ci95"])
                    for condition, s in report.scores[name].items()
                },
            }
            for name, label in policies.items()
        ]
    )


def _step_table(steps: Sequence[Mapping[str, float | str]]) -> Table:
    columns = {
        "step": ("step", ".0f"),
        "reward": ("reward", ".2f"),
        "accuracy": ("accuracy", ".0%"),
        "asking": ("consultation_rate", ".0%"),
        "rho": ("rho", ".2f"),
        "calls": ("experts/calls", ".0f"),
        "withheld": ("experts/withheld", ".0f"),
    }
    return Table(
        [
            {
                "phase": str(step["phase"]),
                **{
                    name: format(step[key], style) if key in step else NONE
                    for name, (key, style) in columns.items()
                },
            }
            for step in steps
        ]
    )
