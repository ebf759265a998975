"""`eapo export`: a real trained policy, opened by transformers and PEFT."""

import json
import shutil

import pytest
import torch
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from eapo_agents.policy.fresh import make_model
from eapo_agents.policy.models import load_policy
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs import evaluate, train
from eapo_agents.tasks import load_problems
from graphs.rollout import first_messages
from trainers.warm_start_episodes import script_texts

SMALL = {
    "policy.fresh": "null",
    "sampling.max_new_tokens": 6,
    "train.steps": 1,
    "train.problems_per_step": 1,
    "train.num_generations": 2,
    "train.minibatches_per_step": 1,
    "train.gradient_accumulation_steps": 1,
    "train.lora": "{r: 4, alpha: 8}",
    "train.report_to": "[]",
    "eval.problems": 4,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained adapter and its evaluation."""
    folder = tmp_path_factory.mktemp("export")
    problems = load_problems("arithmetic", split="train", limit=8, seed=0)
    texts = script_texts(load_recipe("scale-model"), problems)
    make_model(folder / "tiny", texts, layers=1, width=32, heads=2, vocabulary=320, seed=0)
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    settings.append(f"policy.model={folder / 'tiny'}")
    name = "scale-model+self-exploration"
    train(load_recipe(name, settings), folder / "run")
    policy = f"policy.adapter={folder / 'run' / 'policy'}"
    evaluate(load_recipe(name, [*settings, policy]), folder / "eval")
    return folder


def test_the_folder_opens_and_says_what_the_policy_says(run, run_command, tmp_path):
    to = tmp_path / "model"
    status, said, told = run_command(
        "export", run / "run", "--to", to, "--eval", run / "eval", "--json"
    )
    assert status == 0, told
    assert json.loads(said)["kind"] == "model"
    recipe = yaml.safe_load((run / "run" / "recipe.yaml").read_text())
    ours = load_policy(str(run / "tiny"), adapter=str(run / "run" / "policy"))
    theirs = AutoModelForCausalLM.from_pretrained(to)
    tokenizer = AutoTokenizer.from_pretrained(to)
    messages = first_messages(recipe["task"]["system_prompt"], "What is 2 + 3 * 4?")
    prompt = torch.tensor([ChatRenderer(tokenizer).prompt(messages, [])])
    found = [
        model.generate(prompt, max_new_tokens=8, do_sample=False, eos_token_id=[]).tolist()
        for model in (ours.model, theirs)
    ]
    assert found[0] == found[1]
    assert theirs.generation_config.eos_token_id == sorted(ChatRenderer(tokenizer).stop_ids)
    _, metadata, card = (to / "README.md").read_text().split("---\n", 2)
    (model,) = yaml.safe_load(metadata)["model-index"]
    assert model["results"][0]["dataset"]["type"] == "arithmetic"
    assert "| expert calls | 0 |" in card
    assert str(run) not in metadata + card + (to / "recipe.yaml").read_text()


def test_the_adapter_alone_opens_on_its_base(run, run_command, tmp_path):
    to = tmp_path / "adapter"
    status, _, told = run_command("export", run / "run" / "policy", "--to", to, "--adapter")
    assert status == 0, told
    config = json.loads((to / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"
    config["base_model_name_or_path"] = str(run / "tiny")
    (to / "adapter_config.json").write_text(json.dumps(config))
    assert AutoPeftModelForCausalLM.from_pretrained(to).peft_config
    assert "a LoRA adapter on" in (to / "README.md").read_text()


def test_no_empty_form_of_a_model_card_is_left_in_a_run(run):
    texts = [file.read_text() for file in (run / "run").glob("**/README.md")]
    assert all("More Information Needed" not in text for text in texts)
    assert all("fine-tuned version of" not in text for text in texts)


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(run, run_command, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("recipe.yaml", "steps.jsonl"):
        (unfinished / name).write_bytes((run / "run" / name).read_bytes())
    other = json.loads((run / "eval" / "results.json").read_text())
    other["policy"]["weights"] = "another"
    theirs = tmp_path / "eval"
    theirs.mkdir()
    (theirs / "run.json").write_bytes((run / "eval" / "run.json").read_bytes())
    (theirs / "results.json").write_text(json.dumps(other))
    made = tmp_path / "made"
    shutil.copytree(run / "run", made)
    recipe = yaml.safe_load((made / "recipe.yaml").read_text())
    recipe["policy"]["fresh"] = {"layers": 1}
    (made / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    new = tmp_path / "new"
    for words, rule in (
        ([tmp_path, "--to", new], "is no run"),
        ([unfinished, "--to", new], "is not finished"),
        ([made, "--to", new, "--adapter"], "which nobody else has"),
        ([run / "run", "--to", tmp_path / "full"], "holds something already"),
        ([run / "run", "--to", new, "--eval", tmp_path], "is not an evaluation"),
        ([run / "run", "--to", new, "--eval", theirs], "evaluates other weights (another)"),
    ):
        status, _, told = run_command("export", *words)
        assert (status, rule in told) == (2, True), told
    assert not new.exists()
    assert not list(tmp_path.glob(".new*"))
