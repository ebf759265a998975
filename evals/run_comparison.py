"""Two training runs side by side: what they reached, what they cost, and how their recipes differ.

No test is made: each is one run of one seed, and runs of other seeds differ too. A study compares
over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from evals.page import Page, Section
from evals.run_report import Difference
from evals.study import RunFigures
from evals.tables import NONE, Table, number, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class RunComparison:
    """Two training runs."""

    folders: tuple[str, str]
    figures: tuple[RunFigures, RunFigures]
    recipes: Sequence[Difference] | None
    """Keys in which the second (`here`) is not as the first (`base`); None where one of them keeps
    no recipe."""

    def to_json(self) -> dict[str, object]:
        """Return it as one object."""
        a, b = (
            {"folder": folder, **asdict(found)}
            for folder, found in zip(self.folders, self.figures, strict=True)
        )
        keys = None
        if self.recipes is not None:
            keys = {one.key: {"a": one.base, "b": one.here} for one in self.recipes}
        return {"a": a, "b": b, "recipes": keys}


def run_comparison_page(found: RunComparison) -> Page:
    """Return the comparison for people."""
    first, second = found.folders
    unfinished = [
        folder
        for folder, figures in zip(found.folders, found.figures, strict=True)
        if not figures.finished
    ]
    return Page(
        title=f"{second} beside {first}",
        subtitle=f"Not finished: {', '.join(unfinished)}." if unfinished else "",
        sections=[
            Section(table=_figure_table(found), text=[_ONE_SEED]),
            Section(heading="Recipes", table=_recipe_table(found))
            if found.recipes
            else Section(heading="Recipes", text=[_SAME if found.recipes == [] else _NO_RECIPE]),
        ],
    )


_ONE_SEED = (
    "Accuracies are without experts, on held-out problems. Each run is one seed, so no difference "
    "is tested: `eapo study` compares over seeds."
)


_SAME = "Both have the same recipe."
_NO_RECIPE = "One of the two keeps no recipe.yaml, so the recipes are not compared."


def _figure_table(found: RunComparison) -> Table:
    both = [_figures(figures) for figures in found.figures]
    return Table(
        [
            {"figure": name, "first": value, "second": both[1][name]}
            for name, value in both[0].items()
        ]
    )


def _figures(run: RunFigures) -> dict[str, str]:
    return {
        "steps": number(run.steps),
        "accuracy before": percent(run.before),
        "accuracy at the last evaluation": percent(run.after),
        "best accuracy on the way": percent(run.best),
        "accuracy with experts": percent(run.assisted),
        "expert calls": number(run.expert_calls),
        "withheld calls": number(run.calls_withheld),
        "tokens of experts": number(run.expert_tokens),
        "cost of experts": f"{run.expert_usd:,.2f} USD",
        "sampled tokens": number(run.sampled_tokens),
        "rollouts that ask, last ten steps": percent(run.asking_at_the_end),
        "groups whose rewards differ": percent(run.spread),
        "seconds of the command that finished it": number(run.seconds),
    }


def _recipe_table(found: RunComparison) -> Table:
    rows = [
        {"key": one.key, "first": one.base or NONE, "second": one.here or NONE}
        for one in found.recipes or ()
    ]
    return Table(rows, num_text_columns=3)
