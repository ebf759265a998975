"""Arms laid over recipes."""

from pathlib import Path

import pytest

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe

ROOT = Path(__file__).parent.parent


def test_every_shipped_arm_fits_the_scale_model(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = sorted(file.stem for file in (ROOT / "eapo_agents/recipes/arms").glob("*.yaml"))
    assert {"self-exploration", "paper", "eapo", "distillation", "offline"} <= set(names)
    for name in names:
        assert load_recipe(f"scale-model+{name}").name == f"scale-model-{name}"


def test_arms_follow_one_another_and_experts_are_replaced_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes/arms").mkdir(parents=True)
    (tmp_path / "recipes/r.yaml").write_text(
        "name: r\nconsult:\n  experts:\n    a: {kind: scripted, options: {default: x}}\n"
        "    b: {kind: solver}\n"
    )
    (tmp_path / "recipes/arms/one.yaml").write_text(
        "train: {beta: 0.1}\nconsult: {experts: {a: {kind: solver}}}\n"
    )
    (tmp_path / "recipes/arms/two.yaml").write_text("train: {steps: 7}\n")
    recipe = load_recipe("r+one+two", ["seed=3"])
    assert (recipe.name, recipe.seed, recipe.train.beta, recipe.train.steps) == (
        "r-one-two",
        3,
        0.1,
        7,
    )
    assert recipe.consult.experts["a"].options == {}
    assert recipe.consult.experts["b"].kind == "solver"


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"consult": {"acceptance": {"kind": "adaptive"}}}, "solo_share"),
        ({"train": {"beta": 0.1, "lora": None}}, "train.lora"),
        ({"consult": {"solo_share": 1.5}}, "less than or equal to 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, rule):
    with pytest.raises(ValueError, match=rule):
        Recipe.model_validate({"name": "r", **changes})


def test_an_unknown_arm_is_refused_with_the_known_ones(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(RecipeError, match=r"no arm 'epo'.*eapo"):
        load_recipe("scale-model+epo")
