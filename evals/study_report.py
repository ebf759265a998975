"""The report of a study, or of one run."""

from __future__ import annotations

from collections.abc import Sequence

from evals.page import Page, Section
from evals.plots import study_plots
from evals.study import ArmDifference, MeanDifference, Run, Summary
from evals.tables import NONE, Table, interval, number, p_value, percent, points


def study_page(summary: Summary, runs: Sequence[Run] = ()) -> Page:
    """The report; plots of the training's course need its runs."""
    return Page(
        title="Accuracy without experts, on held-out problems",
        subtitle=_unfinished(summary),
        sections=[
            Section(table=arm_table(summary), text=[_ARMS]),
            Section(
                heading="Differences",
                table=_difference_table(summary.differences),
                text=[_PAIRED, _EQUAL],
            ),
            *study_plots(summary, runs),
            Section(heading="Guard rails", bullets=finding_lines(summary)),
        ],
    )


def _unfinished(summary: Summary) -> str:
    """Say which runs have not ended: their last evaluation is no result."""
    runs = [
        f"{arm}, seed {run.seed}"
        for arm, figures in summary.arms.items()
        for run in figures.seeds
        if not run.finished
    ]
    if not runs:
        return ""
    return f"Not finished, and counted here with their last evaluation: {'; '.join(runs)}."


_ARMS = "Means over seeds. The interval is Student's t over seeds, cut to [0%, 100%]."
_PAIRED = (
    "Paired by seed; intervals and p values are of Student's paired t over seeds. p (Holm) is "
    "corrected for all differences of this table. One seed, or equal differences, give no interval."
)
_EQUAL = (
    "At equal cost: the costlier run counts as it was at its last evaluation within the cheaper "
    "run's cost. That is a checkpoint in the middle of its training, not a run planned for that "
    "cost."
)


def arm_table(summary: Summary) -> Table:
    """A line for each arm."""
    return Table(
        [
            {
                "arm": arm,
                "seeds": str(len(f.seeds)),
                "before": percent(f.before),
                "after": percent(f.after),
                "95% interval": interval(f.ci95),
                "worst seed": percent(f.worst),
                "greedy": percent(f.greedy),
                "with experts": percent(f.assisted),
                "asks them": percent(f.asks),
                "gap": percent(f.gap),
                "expert calls": number(f.expert_calls),
                "calls per point": number(f.calls_a_point, 1),
                "sampled tokens": number(f.sampled_tokens),
                "groups whose rewards differ": percent(f.spread),
            }
            for arm, f in summary.arms.items()
        ]
    )


def _difference_table(differences: Sequence[ArmDifference]) -> Table:
    return Table(
        [
            {
                "arm": d.arm,
                "against": d.against,
                "seeds": str(d.seeds),
                "difference": difference_points(d),
                "p": p_value(d.p),
                "p (Holm)": p_value(d.p_holm),
                "at equal sampled tokens": difference_points(d.at_equal_tokens),
                "at equal expert calls": difference_points(d.at_equal_calls),
            }
            for d in differences
        ],
        num_text_columns=2,
    )


def difference_points(difference: MeanDifference | None) -> str:
    """Return a mean difference with its interval, such as `+39.0 points [+33.0, +44.7]`."""
    if difference is None:
        return NONE
    ci95 = difference.ci95 and [bound / 100 for bound in difference.ci95]
    return points(difference.points / 100, ci95)


def finding_lines(summary: Summary) -> list[str]:
    """What the guard rails found: a line for each of them and arm, with its first seed's figures;
    `summary` has those of every seed."""
    lines = []
    for arm, f in summary.arms.items():
        crossed: dict[str, dict[int, str]] = {}
        for run in f.seeds:
            for sentence in run.findings:
                guard = sentence.partition(":")[0]
                crossed.setdefault(guard, {})[run.seed] = sentence
        for by_seed in crossed.values():
            first, *others = by_seed
            likewise = f", and likewise {', '.join(map(str, others))}" if others else ""
            lines.append(f"{arm}, seed {first}{likewise}: {by_seed[first]}")
    return lines
