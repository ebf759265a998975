"""The report of a benchmark run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from evals.benchmarks import find_benchmark
from evals.page import Page, Section
from evals.plots import benchmark_plots
from evals.results import BenchmarkResult
from evals.tables import Table, difference_text, interval, number, percent

Results = Mapping[str, BenchmarkResult]
"""By benchmark and mode, such as `gsm8k solo`."""


class EvaluatedPolicy(TypedDict):
    """The policy, as a run's settings name it."""

    model: str
    weights: str
    step: int


class RunSettings(TypedDict):
    """What the page says of the run's settings."""

    policy: EvaluatedPolicy
    seed: int
    package_version: str
    created_at: str


def benchmark_page(run: RunSettings, results: Results) -> Page:
    """Scores, plots, and a table of details for each benchmark and mode."""
    policy = run["policy"]
    return Page(
        title=f"Benchmarks of {policy['model']}",
        subtitle=f"weights {policy['weights'][:12]}, step {policy['step']}, seed {run['seed']}, "
        f"eapo-agents {run['package_version']}, {run['created_at']}",
        sections=[
            Section(table=score_table(results)),
            *benchmark_plots(results),
            *(
                Section(heading=f"{result['title']} ({key})", table=facts(result))
                for key, result in results.items()
            ),
        ],
    )


def score_table(results: Results) -> Table:
    """A line for each benchmark and mode."""
    return Table(
        [
            {
                "benchmark": key,
                "metric": r["metric"],
                "score": percent(r["score"]),
                "95% interval": interval(r["ci95"]),
                "n": str(r["n"]),
                "samples": str(r["samples"]),
                "in form": percent(r["formatted"], 0),
                "cut off": percent(r["cut_off"], 0),
            }
            for key, r in results.items()
        ],
        num_text_columns=2,
    )


def facts(result: BenchmarkResult) -> Table:
    """What else one benchmark's run gave."""
    found = {name: percent(value) for name, value in result["metrics"].items()}
    found["95% interval, clustered standard error"] = interval(result["ci95_clustered"])
    if result["samples"] > 1:
        found[f"mean over {result['samples']} samples"] = percent(result["score"])
        found["variance over samples"] = f"{result['variance']:.4f}"
        found["majority vote"] = percent(result["majority"])
        found |= {f"pass@{k}": percent(v) for k, v in result["pass_at"].items() if k != "1"}
    if "gap" in result:
        found["assisted - solo"] = difference_text(result["gap"])
    found |= published(result)
    found["sampled tokens"] = number(result["sampled_tokens"])
    found["consultations"] = number(result["consultations"])
    found["seconds"] = number(result["seconds"])
    return Table([{"figure": name, "value": value} for name, value in found.items()])


def published(result: BenchmarkResult) -> dict[str, str]:
    """Figures of others for the benchmark."""
    return {
        f"{name} (published; another policy)": f"{value:.2f}%"
        for name, value in find_benchmark(result["benchmark"]).published.items()
    }
