"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping

from evals.page import Page, Section
from evals.plots import benchmark_plots
from evals.results import Score
from evals.run_folder import Results, RunSettings
from evals.tables import NONE, Table, difference_text, interval, number, percent


def benchmark_page(run: RunSettings, results: Results) -> Page:
    """Return scores, plots, and a table of details for each benchmark and condition."""
    policy, scores = run.policy, results.results
    return Page(
        title=f"Evaluation of {policy.model}",
        subtitle=f"weights {policy.weights[:12]}, step {policy.step}, seed {run.seed}, "
        f"eapo-agents {run.package_version}, {run.created_at}",
        sections=[
            Section(bullets=[*missing_lines(results), *run_again_lines(results)]),
            Section(table=score_table(scores)),
            *benchmark_plots(scores),
            *(
                Section(heading=f"{score.title} ({key})", table=facts(score))
                for key, score in scores.items()
            ),
        ],
    )


def score_table(scores: Mapping[str, Score]) -> Table:
    """Return a line for each benchmark and condition."""
    return Table(
        [
            {
                "benchmark": key,
                "metric": s.metric,
                "score": percent(s.score),
                "95% interval": interval(s.ci95),
                "n": str(s.n),
                "samples": str(s.samples),
                "in form": percent(s.formatted, 0),
                "cut off": percent(s.cut_off, 0),
                "without a grade": ungraded(s),
            }
            for key, s in scores.items()
        ],
        num_text_columns=2,
    )


def missing_lines(results: Results) -> list[str]:
    """Return a sentence for each score of an interrupted run that is not whole."""
    return [
        f"{key}: INCOMPLETE, {count} answers are missing: run its command again to continue."
        for key, count in results.missing.items()
    ]


def run_again_lines(results: Results) -> list[str]:
    """Return a sentence for each score with answers whose first rollout failed."""
    return [
        f"{key}: {score.run_again} answers come from a second rollout, since the first failed. "
        "Where hard problems fail more often (a timeout), the score is of other answers than the "
        "first ones."
        for key, score in results.results.items()
        if score.run_again
    ]


def ungraded(score: Score) -> str:
    """Return how many answers have no part in the score, and why."""
    found = [
        (score.missing, "MISSING"),
        (score.failed, "failed"),
        (score.undecided, "undecided"),
    ]
    return ", ".join(f"{count} {what}" for count, what in found if count) or NONE


def facts(score: Score) -> Table:
    """Return what else one benchmark's run gave."""
    found = {name: percent(value) for name, value in score.metrics.items()}
    found["95% interval, clustered standard error"] = interval(score.ci95_clustered)
    if score.pass_at is not None and score.variance is not None:
        found[f"mean over {score.samples} samples"] = percent(score.score)
        found["variance over samples"] = f"{score.variance:.4f}"
        found["majority vote"] = percent(score.majority)
        found |= {f"pass@{k}": percent(v) for k, v in score.pass_at.items() if k != "1"}
    if score.gap is not None:
        found["assisted - solo"] = difference_text(score.gap)
    found |= published(score)
    found["answers without a grade"] = ungraded(score)
    if score.run_again:
        found["answers of a second rollout, the first failed"] = number(score.run_again)
    counted = score.sampled_tokens
    found["sampled tokens"] = "not counted" if counted is None else number(counted)
    found["consultations"] = number(score.consultations)
    found["seconds"] = number(score.seconds)
    return Table([{"figure": name, "value": value} for name, value in found.items()])


def published(score: Score) -> dict[str, str]:
    """Return figures of others for the benchmark."""
    return {
        f"{name} (published; another policy)": f"{value:.2f}%"
        for name, value in score.published.items()
    }
