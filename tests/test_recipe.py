"""Recipes: what ships is valid, what is resolved is whole."""

from pathlib import Path

import pytest
import yaml

from eapo_agents.recipe_file import load_recipe, to_yaml

RECIPES = sorted((Path(__file__).parent.parent / "eapo_agents" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_shipped_recipes_are_valid_and_named_like_their_files(file):
    assert load_recipe(file).name == file.stem


def test_the_resolved_recipe_says_everything_and_reads_back_the_same(tmp_path):
    recipe = load_recipe(RECIPES[0])
    (tmp_path / "resolved.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "resolved.yaml") == recipe
    assert yaml.safe_load(to_yaml(recipe))["train"]["epsilon_high"] == 0.28


def test_overrides_are_yaml(tmp_path):
    recipe = load_recipe(RECIPES[0], ["train.steps=3", "train.lora=null", "consult.experts={}"])
    assert (recipe.train.steps, recipe.train.lora, recipe.consult.experts) == (3, None, {})


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_the_experts_of_shipped_recipes_can_be_made(file):
    from graphs.agent import make_pool

    assert make_pool(load_recipe(file)).tools


def test_the_guide_s_example_can_be_made(tmp_path, monkeypatch):
    from graphs.agent import make_pool

    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    guide = (Path(__file__).parent.parent / "docs" / "experts.md").read_text()
    example = guide.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "r.yaml").write_text(f"name: guide\n{example}")
    pool = make_pool(load_recipe(tmp_path / "r.yaml"))
    assert [tool.name for tool in pool.tools] == ["strong"]
    assert len(pool.experts[0].tools) == 2
