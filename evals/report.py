"""The demo's report: what help in training was worth without help, with intervals, and what it
cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evals.metrics import paired_bootstrap
from evals.runner import GREEDY, SAMPLED


def demo_report(
    phases: Mapping[str, Mapping[str, Any]], recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything in one object. `accuracy` is over sampled answers; `greedy` stands beside it."""
    steps = [
        {"phase": phase, **step}
        for phase in ("train_logged", "train_live")
        for step in phases[phase]["history"]
    ]
    live = phases["train_live"]["history"]
    collect = phases["collect"]
    report: dict[str, Any] = {
        "model": recipe["policy"]["model"],
        "recipe": recipe["name"],
        "seed": recipe["seed"],
        **{name: _score(phases[name]) for name in ("base", "before", "after")},
        "paired": _paired(phases, SAMPLED, "before"),
        "paired_to_base": _paired(phases, SAMPLED, "base"),
        "base_examples": len(recipe["eval"]["base_examples"]),
        "warm_start_episodes": phases["warm_start"]["episodes"],
        "experts": {
            "calls": collect["expert_calls"] + round(sum(s["experts/calls"] for s in live)),
            "withheld": collect["expert_calls_withheld"]
            + round(sum(s["experts/withheld"] for s in live)),
        },
        "tokens": {
            "evaluation": sum(
                phases[name][mode]["sampled_tokens"]
                for name in ("base", "before", "after")
                for mode in phases[name]
                if mode in (SAMPLED, GREEDY)
            ),
            "collect": collect["sampled_tokens"],
            "train_live": round(sum(s["sampled_tokens"] for s in live)),
        },
        "seconds": {
            "total": sum(phase["seconds"] for phase in phases.values()),
            **{name: phase["seconds"] for name, phase in phases.items()},
        },
        "steps": steps,
    }
    if GREEDY in phases["after"]:
        report["paired"]["greedy"] = _paired(phases, GREEDY, "before")
        report["paired_to_base"]["greedy"] = _paired(phases, GREEDY, "base")
    return report


def report_markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    labels = {
        "base": f"base model, {report['base_examples']} examples shown",
        "before": "before (warm-started)",
        "after": "after EAPO",
    }
    lines = [
        f"# EAPO demo: {report['model']}, recipe {report['recipe']}, seed {report['seed']}",
        "",
        "Accuracy on held-out problems without experts, 95% intervals in brackets.",
        "",
        "| policy | n | sampled | greedy |",
        "| --- | --- | --- | --- |",
        *(_score_line(label, report[name]) for name, label in labels.items()),
        "",
        f"Paired difference, after - before: {_both_points(report['paired'])}.",
        f"To the base model: {_both_points(report['paired_to_base'])}.",
        "",
        f"The warm start taught the formats with {report['warm_start_episodes']} scripted "
        "episodes; "
        "the warm-started policy is the 'before'.",
        f"Expert calls: {report['experts']['calls']} made, {report['experts']['withheld']} saved "
        "(withheld before the call).",
        "Sampled tokens: "
        + ", ".join(f"{name} {count:,}" for name, count in report["tokens"].items())
        + ".",
        "",
        "| phase | step | reward | accuracy | asking | rho | calls | withheld |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_step_line(step) for step in report["steps"]),
        "",
        "| phase | seconds |",
        "| --- | --- |",
        *(f"| {name} | {seconds:.0f} |" for name, seconds in report["seconds"].items()),
        "",
    ]
    return "\n".join(lines)


def _score(phase: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("accuracy", "n", "ci95", "samples", "temperature", "formatted")
    score = {key: phase[SAMPLED][key] for key in kept}
    if GREEDY in phase:
        score["greedy"] = {key: phase[GREEDY][key] for key in kept}
    return score


def _paired(phases: Mapping[str, Mapping[str, Any]], mode: str, baseline: str) -> dict[str, Any]:
    before, after = (phases[name][mode]["per_problem"] for name in (baseline, "after"))
    return asdict(paired_bootstrap(before, after))


def _score_line(label: str, score: Mapping[str, Any]) -> str:
    greedy = share(score["greedy"]) if "greedy" in score else "-"
    return f"| {label} | {score['n']} | {share(score)} | {greedy} |"


def share(score: Mapping[str, Any]) -> str:
    """An accuracy and its interval, such as `42.0% [36.6%, 47.7%]`."""
    low, high = score["ci95"]
    return f"{score['accuracy']:.1%} [{low:.1%}, {high:.1%}]"


def _both_points(paired: Mapping[str, Any]) -> str:
    greedy = f"; greedy {points(paired['greedy'])}" if "greedy" in paired else ""
    return points(paired) + greedy


def points(paired: Mapping[str, Any]) -> str:
    """A difference and its interval, such as `+39.0 points [+33.0, +44.7]`."""
    low, high = (100 * bound for bound in paired["ci95"])
    return f"{100 * paired['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _step_line(step: Mapping[str, Any]) -> str:
    cells: Sequence[str] = (
        str(step["phase"]),
        f"{step['step']:.0f}",
        f"{step['reward']:.2f}" if "reward" in step else "-",
        f"{step['accuracy']:.0%}",
        f"{step['consultation_rate']:.0%}",
        f"{step['rho']:.2f}" if "rho" in step else "-",
        f"{step['experts/calls']:.0f}",
        f"{step['experts/withheld']:.0f}",
    )
    return f"| {' | '.join(cells)} |"
