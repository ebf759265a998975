"""The report of a study, or of one run: what each arm reached alone, what it cost, and which
differences between arms are more than chance.

Seeds are the unit: an arm's band and the paired intervals are over them, since problems of one seed
share their policy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from evals.guards import findings, leak_findings

Run = Mapping[str, Any]
"""One run: {arm, seed, history, evals, result}."""
REFERENCES = ("self-exploration", "distillation")
"""Arms that the others are compared with: learning without experts, and imitating them."""
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t at 97.5% for 1 to 10 degrees of freedom; beyond, the normal's is near enough."""


def summarise(runs: Sequence[Run]) -> dict[str, Any]:
    """The report's figures."""
    by_arm: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_arm.setdefault(run["arm"], []).append(_run_figures(run))
    arms = {arm: _arm_figures(figures) for arm, figures in by_arm.items()}
    return {"arms": arms, "differences": _differences(by_arm)}


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% interval of the mean of a few values (Student's t); None for fewer than two."""
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else 1.96
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


def _run_figures(run: Run) -> dict[str, Any]:
    history, evals = run["history"], run["evals"]
    result = run["result"] or {}
    curve = [(int(e["step"]), _accuracy(e)) for e in evals]
    collected = result.get("collected") or {}
    tokens_at = _spent(curve, history, "sampled_tokens", collected.get("sampled_tokens"))
    calls_at = _spent(curve, history, "experts/calls", collected.get("expert_calls"))
    calls = calls_at[-1] if curve else 0.0
    before, after = (curve[0][1], curve[-1][1]) if curve else (None, None)
    assisted = result.get("assisted")
    gained = None if before is None or after is None else 100 * (after - before)
    return {
        "seed": run["seed"],
        "finished": run["result"] is not None,
        "steps": int(history[-1]["step"]) if history else 0,
        "before": before,
        "after": after,
        "best": max((accuracy for _, accuracy in curve), default=None),
        "greedy": _greedy(evals[-1]) if evals else None,
        "assisted": assisted["sampled"]["accuracy"] if assisted else None,
        "asks": assisted["sampled"].get("asked") if assisted else None,
        "gained_points": gained,
        "expert_calls": calls,
        "calls_withheld": _total(history, "experts/withheld"),
        "expert_tokens": _total(history, "expert_tokens"),
        "expert_usd": _total(history, "expert_usd"),
        "sampled_tokens": tokens_at[-1] if curve else 0.0,
        "calls_a_point": calls / gained if gained and gained > 0 and calls else None,
        "spread": _mean(history, "nonzero_variance_groups"),
        "asking_at_the_end": _mean(history[-10:], "consultation_rate"),
        "seconds": result.get("seconds"),
        "curve": curve,
        "tokens_at": tokens_at,
        "calls_at": calls_at,
        "findings": [*findings(history, evals), *leak_findings(result.get("leaks") or {})],
    }


def _spent(
    curve: Sequence[tuple[int, float]],
    history: Sequence[Mapping[str, float]],
    name: str,
    collected: float | None,
) -> list[float]:
    """What had been spent at each evaluation. The history of a logged run tells what its collection
    cost again in each pass; all of it was spent before the first step."""
    if collected is not None:
        return [float(collected) if step else 0.0 for step, _ in curve]
    return [_total([h for h in history if h["step"] <= step], name) for step, _ in curve]


def _arm_figures(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    named = {
        name: [f[name] for f in figures if f[name] is not None]
        for name in (
            "before",
            "after",
            "greedy",
            "assisted",
            "asks",
            "gained_points",
            "expert_calls",
            "sampled_tokens",
            "calls_a_point",
            "spread",
            "seconds",
        )
    }
    means = {name: statistics.fmean(values) if values else None for name, values in named.items()}
    interval = t_interval(named["after"])
    assisted, alone = means["assisted"], means["after"]
    return {
        **means,
        "ci95": list(interval) if interval else None,
        "worst": min(named["after"], default=None),
        "gap": assisted - alone if assisted is not None and alone is not None else None,
        "seeds": list(figures),
    }


def _differences(by_arm: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Every arm against the references, paired by seed; where there is none of them, against the
    first."""
    arms = list(by_arm)
    references = [arm for arm in REFERENCES if arm in by_arm] or arms[:1]
    pairs = [
        (arm, reference)
        for number, reference in enumerate(references)
        for arm in arms
        if arm != reference and arm not in references[:number]
    ]
    found = (_difference(by_arm, arm, reference) for arm, reference in pairs)
    return [difference for difference in found if difference is not None]


def _difference(
    by_arm: Mapping[str, Sequence[Mapping[str, Any]]], arm: str, reference: str
) -> dict[str, Any] | None:
    theirs_of = {f["seed"]: f for f in by_arm[reference] if f["after"] is not None}
    pairs = [
        (ours, theirs_of[ours["seed"]])
        for ours in by_arm[arm]
        if ours["after"] is not None and ours["seed"] in theirs_of
    ]
    if not pairs:
        return None
    return {
        "arm": arm,
        "against": reference,
        **_in_points([ours["after"] - theirs["after"] for ours, theirs in pairs]),
        "seeds": len(pairs),
        "at_equal_tokens": _at_equal(pairs, "tokens_at"),
        "at_equal_calls": _at_equal(pairs, "calls_at"),
    }


def _in_points(differences: Sequence[float]) -> dict[str, Any]:
    interval = t_interval(differences)
    return {
        "points": 100 * statistics.fmean(differences),
        "ci95": [100 * value for value in interval] if interval else None,
    }


def _at_equal(
    pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], spent_at: str
) -> dict[str, Any] | None:
    """The same difference where both had spent as much as the thriftier of the two did in all; None
    where one of them spent nothing."""
    differences = []
    for ours, theirs in pairs:
        most = min(ours[spent_at][-1], theirs[spent_at][-1])
        if not most:
            return None
        differences.append(_reached(ours, most, spent_at) - _reached(theirs, most, spent_at))
    return _in_points(differences)


def _reached(figures: Mapping[str, Any], most: float, spent_at: str) -> float:
    """Accuracy at the last evaluation before more than that was spent."""
    within = [
        accuracy
        for (_, accuracy), spent in zip(figures["curve"], figures[spent_at], strict=True)
        if spent <= most
    ]
    return float(within[-1])


def _accuracy(entry: Mapping[str, Any]) -> float:
    return float(entry["sampled"]["accuracy"])


def _greedy(entry: Mapping[str, Any]) -> float | None:
    return float(entry["greedy"]["accuracy"]) if "greedy" in entry else None


def _total(history: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(step.get(name, 0.0) for step in history)


def _mean(history: Sequence[Mapping[str, float]], name: str) -> float | None:
    values = [step[name] for step in history if name in step]
    return statistics.fmean(values) if values else None


HEADER = (
    "arm",
    "seeds",
    "alone, before",
    "alone, after",
    "95% over seeds",
    "worst seed",
    "greedy",
    "with experts",
    "asks them",
    "gap",
    "expert calls",
    "calls a point",
    "sampled tokens",
    "groups with spread",
)


def table_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """A line for each arm."""
    return [
        [
            arm,
            str(len(f["seeds"])),
            percent(f["before"]),
            percent(f["after"]),
            f"[{percent(f['ci95'][0])}, {percent(f['ci95'][1])}]" if f["ci95"] else "-",
            percent(f["worst"]),
            percent(f["greedy"]),
            percent(f["assisted"]),
            percent(f["asks"]),
            percent(f["gap"]),
            number(f["expert_calls"]),
            number(f["calls_a_point"]),
            number(f["sampled_tokens"]),
            percent(f["spread"]),
        ]
        for arm, f in summary["arms"].items()
    ]


def difference_lines(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each comparison."""
    lines = []
    for d in summary["differences"]:
        interval = (
            f", 95% interval [{d['ci95'][0]:+.1f}, {d['ci95'][1]:+.1f}]"
            if d["ci95"]
            else ", one seed: no interval"
        )
        lines.append(
            f"{d['arm']} against {d['against']}: {d['points']:+.1f} points{interval}, "
            f"{d['seeds']} seeds paired{_equal_text('sampled tokens', d['at_equal_tokens'])}"
            f"{_equal_text('expert calls', d['at_equal_calls'])}."
        )
    return lines


def _equal_text(what: str, found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    interval = f" [{found['ci95'][0]:+.1f}, {found['ci95'][1]:+.1f}]" if found["ci95"] else ""
    return f"; at equal {what} {found['points']:+.1f}{interval}"


def finding_lines(summary: Mapping[str, Any]) -> list[str]:
    """What the guard rails found: a line for each of them and arm, with its first seed's figures;
    `summary` has those of every seed."""
    lines = []
    for arm, f in summary["arms"].items():
        crossed: dict[str, dict[int, str]] = {}
        for run in f["seeds"]:
            for sentence in run["findings"]:
                guard = sentence.partition(":")[0]
                crossed.setdefault(guard, {})[run["seed"]] = sentence
        for by_seed in crossed.values():
            first, *others = by_seed
            likewise = f", and likewise {', '.join(map(str, others))}" if others else ""
            lines.append(f"{arm}, seed {first}{likewise}: {by_seed[first]}")
    return lines


def study_markdown(summary: Mapping[str, Any]) -> str:
    """For people, and for pull requests."""
    lines = [
        "# Accuracy alone, on held-out problems",
        "",
        f"| {' | '.join(HEADER)} |",
        f"|{' --- |' * len(HEADER)}",
        *(f"| {' | '.join(row)} |" for row in table_rows(summary)),
    ]
    if summary["differences"]:
        lines += ["", "## Differences", "", *(f"- {d}" for d in difference_lines(summary))]
    if found := finding_lines(summary):
        lines += ["", "## Guard rails", "", *(f"- {line}" for line in found)]
    return "\n".join([*lines, ""])


def study_html(summary: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """One file that needs no network. Everything is escaped; plots need the `bench` extra."""
    from jinja2 import Environment

    from evals.study_plots import plots

    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        header=HEADER,
        rows=table_rows(summary),
        differences=difference_lines(summary),
        findings=finding_lines(summary),
        plots=plots(summary, runs),
    )


def percent(value: float | None) -> str:
    """A share for people."""
    return "-" if value is None else f"{100 * value:.1f}%"


def number(value: float | None) -> str:
    """A count for people."""
    return "-" if value is None else f"{value:,.0f}"


_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Study</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2430; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .9rem; }
th, td { text-align: right; padding: .35rem .5rem; border-bottom: 1px solid #d7dce3;
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(30rem, 1fr)); gap: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
svg { max-width: 100%; height: auto; }
</style></head><body>
<h1>Accuracy alone, on held-out problems</h1>
<table><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if differences %}<h2>Differences</h2><ul>{% for line in differences %}<li>{{ line }}</li>
{% endfor %}</ul>{% endif %}
<div class="plots">
{% for heading, svg in plots %}<div><h2>{{ heading }}</h2>{{ svg | safe }}</div>{% endfor %}
</div>
{% if findings %}<h2>Guard rails</h2><ul>{% for line in findings %}<li>{{ line }}</li>
{% endfor %}</ul>{% endif %}
</body></html>
"""
