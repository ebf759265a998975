"""The tasks of benchmarks/studies/four_tasks, as their recipes read them."""

from __future__ import annotations

from pathlib import Path

import pytest

from eapo_agents.recipe_file import load_recipe
from eapo_agents.rewards import reward_of, scored
from eapo_agents.runs.loading import warm_start_problems
from graphs.agent import make_pool

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "studies" / "four_tasks"


@pytest.mark.parametrize("name", ["lookup", "rule", "legs", "functions"])
def test_what_is_held_out_is_new_and_its_gold_answers_are_right(name, monkeypatch, request):
    if name == "functions":
        request.getfixturevalue("needs_sandbox")
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(str(FOLDER))
    recipe = load_recipe(Path(f"{name}.yaml"))
    trained, held_out = (recipe.task.load(split, recipe.seed) for split in ("train", "heldout"))
    assert len(trained) > 2 * len(held_out) > 50
    practised = warm_start_problems(recipe)  # refuses what is held out
    assert len(practised) > 600
    assert not {p.question for p in practised} & {p.question for p in trained}

    reward, form = reward_of(recipe, make_pool(recipe)), recipe.task.answer_form
    for problem, other in zip(held_out[:4], trained[:4], strict=True):
        assert scored(reward, form.format(answer=problem.answer), problem)[1]
        if other.answer != problem.answer:
            assert not scored(reward, form.format(answer=other.answer), problem)[1]
    for problem in practised[:2]:
        assert scored(reward, str(problem.metadata["solution"]), problem)[1]
