"""The recipe's reference is made from the models, whole and up to date; `eapo recipe` shows it."""

import json
from pathlib import Path

import pytest
import yaml

from eapo_agents.recipe import Recipe
from eapo_agents.recipe_docs import all_keys, reference, shipped
from eapo_agents.recipe_file import load_recipe

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def eapo(run_command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return run_command


def test_the_page_has_the_keys_of_today():
    page = (DOCS / "recipes.md").read_text()
    written = page.split("## Every key\n\n")[1]
    assert written == reference(), "make it again: `eapo recipe keys` below '## Every key'"


def test_every_key_has_a_meaning():
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 110
    assert [row for row in rows if not row.rsplit("|", 2)[1].strip()] == []


def test_every_key_of_a_resolved_recipe_is_in_the_reference():
    resolved = load_recipe(
        "cpu-smol",
        ["policy.fresh={}", "train.overlong={tokens: 9, buffer: 3}", "train.replay={store: x}"],
    ).model_dump()
    resolved["consult"]["experts"] = {"NAME": resolved["consult"]["experts"]["solver"]}

    def keys(section: dict[str, object], place: str = "") -> set[str]:
        found = set()
        for name, value in section.items():
            key = f"{place}{name}"
            found |= keys(value, f"{key}.") if isinstance(value, dict) and value else {key}
        return found

    known = set(all_keys())
    assert keys(resolved) <= known
    assert {"train.lora.r", "sampling.top_p", "consult.experts.NAME.price.input_usd"} <= known


def test_recipe_list_has_a_line_for_each_that_ships(eapo):
    status, out, err = eapo("recipe", "list")
    assert status == 0, err
    assert len(out.splitlines()) == len(shipped())
    assert any(line.startswith("arm     eapo ") for line in out.splitlines())
    assert all(one.about for one in shipped())


def test_recipe_show_prints_what_reads_back_the_same(eapo, tmp_path):
    status, out, err = eapo("recipe", "show", "scale-model+eapo", "--set", "train.steps=3")
    assert status == 0, err
    assert yaml.safe_load(out)["train"]["internalise"]["hint_stripped_weight"] == 2.0
    (tmp_path / "shown.yaml").write_text(out)
    assert load_recipe(tmp_path / "shown.yaml") == load_recipe(
        "scale-model+eapo", ["train.steps=3"]
    )
    status, out, err = eapo("recipe", "show", "cpu-smol", "--json")
    assert Recipe.model_validate(json.loads(out)) == load_recipe("cpu-smol")


def test_recipe_keys_prints_the_reference(eapo):
    assert eapo("recipe", "keys")[1] == reference()


@pytest.mark.parametrize("name", ["nothing", "cpu-smol+nothing"])
def test_a_recipe_that_is_not_there_is_one_sentence(eapo, name):
    status, out, err = eapo("recipe", "show", name)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "There is no" in err
