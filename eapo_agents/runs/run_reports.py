"""What a training run's folder has for its report: the ledger, examples, the recipe's base."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from eapo_agents.runs.folder import RECIPE, TRACES, VERDICTS, expert_file, read_history

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.store.briefs import Brief
    from eapo_agents.store.browsing import StoreBrowser
    from evals.run_report import Difference, Example, RunFacts

MOST_EXAMPLES = 3
_MOST_ROLLOUTS = 5_000
"""Of a run without evaluations: the latest, in which examples are looked for."""
_PAGE = 100
_MOST_CHARS = 120
"""Of a recipe's value in a table."""
_SHIPPED = Path(__file__).parents[1] / "recipes"


def run_facts(folder: Path) -> RunFacts:
    """Read what a run's report needs beside its figures. What the folder does not have is left out:
    an old run may have no ledger, and one on logged traces has no store.

    Raises:
        StoreError: a store or ledger is there and cannot be read.
        RecipeError: the saved recipe cannot be read.
    """
    from eapo_agents.recipe_file import load_recipe
    from evals.run_report import RunFacts

    improved, failed, compared = _examples(folder)
    if not (folder / RECIPE).exists():
        return RunFacts(name=folder.name, improved=improved, failed=failed, compared=compared)
    recipe = load_recipe(folder / RECIPE)
    base = base_of(recipe.name)
    return RunFacts(
        name=recipe.name,
        experts=_costs(expert_file(recipe, folder)),
        improved=improved,
        failed=failed,
        compared=compared,
        base=base or "",
        differences=differences(recipe, base),
    )


def _costs(ledger: Path) -> list[Mapping[str, Any]]:
    from eapo_agents.experts.call_store import CallStore
    from eapo_agents.experts.costs import costs

    if not ledger.exists():
        return []
    store = CallStore(ledger, create=False)
    try:
        return [dict(line.summary()) for line in costs(store.rows(None))]
    finally:
        store.close()


def base_of(name: str) -> str | None:
    """Return the shipped recipe that a name begins with: `scale-model` of `scale-model-eapo`. None
    where there is none, as for a recipe of a user's own."""
    shipped = sorted((file.stem for file in _SHIPPED.glob("*.yaml")), key=len, reverse=True)
    return next((s for s in shipped if name == s or name.startswith(f"{s}-")), None)


def differences(recipe: Recipe, base: str | None) -> list[Difference]:
    """Return the keys in which a recipe is not as its base is; without a base, as the defaults
    are."""
    from eapo_agents.recipe import Recipe
    from eapo_agents.recipe_file import load_recipe

    return differing(recipe, load_recipe(base) if base else Recipe(name=recipe.name))


def differing(recipe: Recipe, base: Recipe) -> list[Difference]:
    """Return the keys in which a recipe is not as another is, its name left out."""
    from evals.run_report import Difference

    here, there = (r.model_dump(mode="json") for r in (recipe, base))
    return [
        Difference(key=key, here=_value(own), base=_value(other))
        for key, own, other in _differing(here, there)
        if key != "name"
    ]


def _differing(
    here: Mapping[str, Any], there: Mapping[str, Any], before: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield each key that differs, with both values: the smallest section that both have."""
    for key in dict.fromkeys([*here, *there]):
        own, other = here.get(key), there.get(key)
        if isinstance(own, Mapping) and isinstance(other, Mapping):
            yield from _differing(own, other, f"{before}{key}.")
        elif own != other:
            yield f"{before}{key}", own, other


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"


_Answers: TypeAlias = "Mapping[str, tuple[bool, Brief]]"
"""Problem id -> whether it was right, and a rollout on it."""


def _examples(folder: Path) -> tuple[list[Example], list[Example], str]:
    """Return problems that became right, problems that are wrong, and which answers these are."""
    from eapo_agents.store.browsing import StoreBrowser

    if not (folder / TRACES).exists():
        return [], [], ""
    verdicts = read_history(folder, VERDICTS) if (folder / VERDICTS).exists() else []
    with StoreBrowser.look_into(folder / TRACES) as browser:
        if verdicts:
            first, last = verdicts[0], verdicts[-1]
            told = f"Held-out problems, answered without experts after step {last['step']}"
            after = _evaluated(browser, last)
            if len(verdicts) == 1:
                return [], _failed({}, after), f"{told}."
            before, told = _evaluated(browser, first), f"{told}, and before it after step"
            return _improved(before, after), _failed(before, after), f"{told} {first['step']}."
        before, after = _in_training(browser)
    told = "Problems of the training, in rollouts without experts: the first and the last of each."
    return _improved(before, after), _failed(before, after), told


def _evaluated(browser: StoreBrowser, verdicts: Mapping[str, Any]) -> _Answers:
    """Return the answers of an evaluation's first condition."""
    condition, right = next(iter(verdicts["right"].items()))
    briefs = _briefs(browser, f"eval/{verdicts['step']}/{verdicts['weights']}/{condition}")
    return {b.problem.id: (right[b.problem.id] > 0.5, b) for b in briefs if b.problem.id in right}


def _in_training(browser: StoreBrowser) -> tuple[_Answers, _Answers]:
    """Return the first and the last solo rollout of each problem, where there are two steps."""
    of_kind = [info.run_id for info in browser.runs() if info.kind == "train"]
    latest = list(_briefs(browser, of_kind[-1])) if of_kind else []
    solo = [(b.correct, b) for b in latest if b.role == "solo" and b.correct is not None]
    after = {brief.problem.id: (right, brief) for right, brief in reversed(solo)}
    before = {
        brief.problem.id: (right, brief)
        for right, brief in solo
        if brief.global_step < after[brief.problem.id][1].global_step
    }
    return before, after


def _briefs(browser: StoreBrowser, run_id: str) -> Iterator[Brief]:
    """Yield a run's rollouts without their turns, the latest first."""
    from eapo_agents.store.briefs import Wanted

    last: int | None = None
    for _ in range(0, _MOST_ROLLOUTS, _PAGE):
        page = browser.briefs(Wanted(run_id=run_id, before=last), _PAGE)
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1].id


def _improved(before: _Answers, after: _Answers) -> list[Example]:
    return _first(
        (before[key][1], brief)
        for key, (right, brief) in after.items()
        if right and key in before and not before[key][0]
    )


def _failed(before: _Answers, after: _Answers) -> list[Example]:
    """Those that were right before come first."""
    wrong = [(before.get(key), brief) for key, (right, brief) in after.items() if not right]
    wrong.sort(key=lambda pair: not (pair[0] and pair[0][0]))
    return _first((seen and seen[1], brief) for seen, brief in wrong)


def _first(pairs: Iterable[tuple[Brief | None, Brief]]) -> list[Example]:
    from evals.run_report import Example

    return [
        Example(
            id=after.problem.id,
            question=after.problem.question,
            gold=after.problem.answer,
            before=before.answer if before is not None else None,
            after=after.answer,
        )
        for before, after in islice(pairs, MOST_EXAMPLES)
    ]
