"""The report of one training run: accuracy, cost, curves, examples, and what its recipe changes.

Every figure is of the run's own files: steps.jsonl, evals.jsonl, train.json, the experts' ledger,
and the store for examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.guards import HEALTHY, WINDOW, healthy_figures, healthy_range, is_healthy
from evals.page import Page, Section
from evals.plots import study_plots
from evals.study import History, Run, RunFigures, Summary
from evals.study_report import finding_lines
from evals.tables import NONE, Table, interval, number, percent

_MOST_CHARS = 160
"""Of a question or an answer in a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A problem that the policy answered twice, or once."""

    id: str
    question: str
    gold: str
    before: str | None
    """Its earlier answer; None where there is none."""
    after: str | None
    """Its later answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A key of the recipe that is not as in its base."""

    key: str
    here: str
    base: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What a run's folder has beside its figures."""

    name: str
    """The recipe's."""
    experts: Sequence[Mapping[str, Any]] = ()
    """Costs of each expert, as `eapo experts cost` has them."""
    improved: Sequence[Example] = ()
    failed: Sequence[Example] = ()
    compared: str = ""
    """Which answers the examples are."""
    base: str = ""
    """The recipe that this one is compared with; empty for the defaults."""
    differences: Sequence[Difference] = ()


def run_page(run: Run, summary: Summary, facts: RunFacts) -> Page:
    """The report of a run. `summary` has the run as its only one."""
    (figures,) = next(iter(summary.arms.values())).seeds
    return Page(
        title=f"Training run of {facts.name}: accuracy without experts, on held-out problems",
        subtitle="" if figures.finished else "The run is not finished.",
        sections=[
            Section(table=accuracy_table(run), text=[_ACCURACY]),
            Section(heading="The run", table=_run_table(figures)),
            Section(heading="Experts", table=_expert_table(facts.experts), text=[_LEDGER]),
            *study_plots(summary, [run]),
            _examples("Improved", facts.improved, facts.compared),
            _examples("Failed", facts.failed, facts.compared),
            Section(
                heading=f"The recipe against {facts.base or 'the defaults'}",
                table=Table(
                    [{"key": d.key, "here": d.here, "base": d.base} for d in facts.differences],
                    num_text_columns=3,
                ),
            ),
            Section(heading="Health", table=health_table(run["history"])),
            Section(heading="Guard rails", bullets=finding_lines(summary)),
        ],
    )


_ACCURACY = (
    "Intervals are over the problems of this run. Runs of other seeds differ by more: a study "
    "(eapo study) has intervals over seeds."
)
_LEDGER = (
    "By the ledger. Calls of a step that was run again after an interruption are in it too, since "
    "they were paid."
)


def accuracy_table(run: Run) -> Table:
    """A line for each condition of the first and of the last evaluation."""
    evals = run["evals"]
    rows = []
    for evaluation in [*evals[:1], *evals[1:][-1:]]:
        for condition, score in evaluation["scores"].items():
            known: Mapping[str, Any] = score
            rows.append(
                {
                    "evaluated": condition,
                    "after step": number(evaluation["step"]),
                    "accuracy": percent(score["score"]),
                    "95% interval": interval(known.get("ci95")),
                    "problems": number(known.get("n")),
                }
            )
    return Table(rows)


def health_table(history: History) -> Table:
    """A line for each figure that has a healthy range: its mean over the last steps."""
    rows = [
        {
            "figure": name,
            "what it is": HEALTHY[name][2],
            "healthy": healthy_range(name).removeprefix("healthy "),
            "judged": "healthy" if is_healthy(name, mean) else "out of range",
            f"last {WINDOW} steps": number(mean, 3),
        }
        for name, mean in healthy_figures(history).items()
    ]
    return Table(rows, num_text_columns=4)


def _run_table(figures: RunFigures) -> Table:
    calls = figures.expert_calls
    found = {
        "steps": number(figures.steps),
        "expert calls": number(calls),
        "withheld calls": number(figures.calls_withheld),
        "expert calls for each point gained": number(figures.calls_a_point, 1),
        "tokens of experts": number(figures.expert_tokens),
        "cost of experts": f"{figures.expert_usd:,.2f} USD",
        "sampled tokens": number(figures.sampled_tokens),
        "rollouts that ask, last ten steps": percent(figures.asking_at_the_end),
        "groups whose rewards differ": percent(figures.spread),
        "best accuracy on the way": percent(figures.best),
        "seconds of the command that finished it": number(figures.seconds),
    }
    return Table([{"figure": name, "value": value} for name, value in found.items()])


def _expert_table(experts: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        [
            {
                "expert": str(e["expert"]),
                "calls": number(e["calls"]),
                "stored replies": number(e["cached"]),
                "withheld": number(e["withheld"]),
                "failed": number(e["failed"]),
                "accepted": percent(e["acceptance"]),
                "tokens": number(e["tokens"]),
                "USD": NONE if e["cost_usd"] is None else f"{e['cost_usd']:,.2f}",
                "median seconds": number(e["p50_s"], 2),
            }
            for e in experts
        ]
    )


def _examples(heading: str, examples: Sequence[Example], compared: str) -> Section:
    return Section(
        heading=heading,
        text=[compared],
        table=Table(
            [
                {
                    "problem": _cut(example.question),
                    "gold answer": _cut(example.gold),
                    "before": NONE if example.before is None else _cut(example.before),
                    "later": _cut(example.after or "(no answer)"),
                }
                for example in examples
            ],
            num_text_columns=4,
        ),
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"
