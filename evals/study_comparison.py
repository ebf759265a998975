"""Two studies side by side: what each arm reached in both, and the difference over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from evals.metrics import holm
from evals.page import Page, Section
from evals.run_report import Difference
from evals.study import ArmDifference, ArmFigures, Run, paired_difference, summarise
from evals.study_report import difference_points
from evals.tables import NONE, Table, interval, number, p_value, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPair:
    """An arm of both studies, or of one of them."""

    arm: str
    figures: tuple[ArmFigures | None, ArmFigures | None]
    """In the first study and in the second; None where it has no such arm."""
    difference: ArmDifference | None
    """The second's accuracy less the first's, paired by seed; None where one has no run of the same
    seed, or they are scored on other problems."""
    recipes: Sequence[Difference] | None
    """Keys in which the second's recipe (`here`) is not as the first's (`base`); None where one of
    them has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyComparison:
    """Two studies."""

    folders: tuple[str, str]
    pairs: Sequence[ArmPair]
    """In the order of the first study, then what the second alone has."""
    unfinished: Sequence[str]
    """Runs that have not ended, which are left out: `FOLDER: ARM, seed N`."""

    def to_json(self) -> dict[str, object]:
        """Return it as one object."""
        arms = {
            pair.arm: {
                "a": pair.figures[0] and asdict(pair.figures[0]),
                "b": pair.figures[1] and asdict(pair.figures[1]),
                "difference": pair.difference and asdict(pair.difference),
                "recipes": None
                if pair.recipes is None
                else {one.key: {"a": one.base, "b": one.here} for one in pair.recipes},
            }
            for pair in self.pairs
        }
        a, b = self.folders
        return {"a": a, "b": b, "arms": arms, "unfinished": list(self.unfinished)}


def compare_studies(
    folders: tuple[str, str],
    runs: tuple[Sequence[Run], Sequence[Run]],
    recipes: Mapping[str, Sequence[Difference]],
) -> StudyComparison:
    """Pair the arms of two studies by their names. Runs that have not ended are left out: what they
    had reached on the way is no result.

    Args:
        runs: of the first study and of the second.
        recipes: by arm, how its recipe in the second differs from that in the first.
    """
    ended = [[run for run in of_one if run["result"] is not None] for of_one in runs]
    first, second = (summarise(of_one).arms for of_one in ended)
    found = {
        arm: paired_difference(
            {"first": first[arm].seeds, "second": second[arm].seeds}, "second", "first"
        )
        for arm in first
        if arm in second and _scored_alike(recipes.get(arm))
    }
    corrected = holm({arm: d.p for arm, d in found.items() if d is not None and d.p is not None})
    return StudyComparison(
        folders=folders,
        pairs=[
            ArmPair(
                arm=arm,
                figures=(first.get(arm), second.get(arm)),
                difference=replace(d, arm=arm, against=folders[0], p_holm=corrected.get(arm))
                if (d := found.get(arm))
                else None,
                recipes=recipes.get(arm),
            )
            for arm in dict.fromkeys([*first, *second])
        ],
        unfinished=[
            f"{folder}: {run['arm']}, seed {run['seed']}"
            for folder, of_one in zip(folders, runs, strict=True)
            for run in of_one
            if run["result"] is None
        ],
    )


def _scored_alike(recipes: Sequence[Difference] | None) -> bool:
    """Whether the held-out problems, and how they are answered and scored, are known to be the
    same."""
    return recipes is not None and not any(
        one.key.split(".")[0] in ("task", "eval") for one in recipes
    )


def study_comparison_page(found: StudyComparison) -> Page:
    """Return the comparison for people."""
    first, second = found.folders
    of_both = [pair for pair in found.pairs if None not in pair.figures]
    other = [pair.arm for pair in of_both if not _scored_alike(pair.recipes)]
    text = [_PAIRED]
    if other:
        text.append(
            "Not paired, since their recipes have another task or evaluation, or are not there: "
            f"{', '.join(other)}."
        )
    table = _recipes(found)
    same = all(pair.recipes is not None for pair in of_both)
    return Page(
        title=f"{second} beside {first}",
        sections=[
            Section(table=_accuracies(found), text=text),
            Section(heading="Costs, means over seeds", table=_costs(found)),
            Section(heading="Recipes", table=table)
            if table.rows
            else Section(heading="Recipes", text=[_SAME if same else _NO_RECIPE]),
            Section(heading="Not finished, and left out", bullets=found.unfinished),
        ],
    )


_SAME = "Arms of the same name have the same recipe."
_NO_RECIPE = "Some arms keep no recipe.yaml. The others have the same recipe as their namesakes."
_PAIRED = (
    "Accuracy without experts, on held-out problems, means over seeds with Student's 95% interval. "
    "The difference is second - first, paired by seed, with Student's paired t; p (Holm) is "
    "corrected for all arms. One seed, or equal differences, give no interval."
)


def _accuracies(found: StudyComparison) -> Table:
    rows = []
    for pair in found.pairs:
        a, b = pair.figures
        d = pair.difference
        rows.append(
            {
                "arm": pair.arm,
                "seeds, first": str(len(a.seeds)) if a else NONE,
                "seeds, second": str(len(b.seeds)) if b else NONE,
                "before, first": percent(a.before if a else None),
                "before, second": percent(b.before if b else None),
                "after, first": _after(a),
                "after, second": _after(b),
                "seeds of both": str(d.seeds) if d else NONE,
                "difference": difference_points(d),
                "p": p_value(d.p if d else None),
                "p (Holm)": p_value(d.p_holm if d else None),
            }
        )
    return Table(rows)


def _after(figures: ArmFigures | None) -> str:
    if figures is None:
        return NONE
    return f"{percent(figures.after)} {interval(figures.ci95) if figures.ci95 else ''}".strip()


def _costs(found: StudyComparison) -> Table:
    return Table(
        [
            {
                "arm": pair.arm,
                "expert calls, first": number(a.expert_calls if a else None),
                "expert calls, second": number(b.expert_calls if b else None),
                "sampled tokens, first": number(a.sampled_tokens if a else None),
                "sampled tokens, second": number(b.sampled_tokens if b else None),
                "seconds, first": number(a.seconds if a else None),
                "seconds, second": number(b.seconds if b else None),
            }
            for pair in found.pairs
            for a, b in [pair.figures]
        ]
    )


def _recipes(found: StudyComparison) -> Table:
    """A line for each difference, with the arms that have it."""
    arms_of: dict[Difference, list[str]] = {}
    for pair in found.pairs:
        for one in pair.recipes or ():
            arms_of.setdefault(one, []).append(pair.arm)
    of_both = [pair.arm for pair in found.pairs if pair.recipes is not None]
    rows = [
        {
            "key": one.key,
            "first": one.base or NONE,
            "second": one.here or NONE,
            "arms": "all of both" if arms == of_both else ", ".join(arms),
        }
        for one, arms in arms_of.items()
    ]
    return Table(rows, num_text_columns=4)
