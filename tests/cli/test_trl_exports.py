"""What `eapo traces export --as sft|dpo` writes is what TRL's commands take with our recipes."""

import dataclasses
import json
from pathlib import Path

import datasets
import pytest
from datasets import load_dataset
from trl.scripts import dpo, sft

from eapo_agents.policy.fresh import make_model
from eapo_agents.policy.models import identify_policy
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Sampling, StopReason, Turn

RECIPES = Path(__file__).parents[2] / "eapo_agents/recipes/trl"
VERSION = PolicyVersion(model="m", base="b", weights="w", step=0)


def turn(text: str) -> Turn:
    return Turn(
        context_ids=(1,),
        completion_ids=(2,),
        logprobs=(-0.1,),
        parent=None,
        text=text,
        finish_reason="stop",
    )


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    make_model(folder, ["What is 7 + 3 * 4?"], layers=1, width=32, heads=2, vocabulary=320, seed=0)
    return folder


@pytest.fixture
def store(tmp_path, trajectory):
    """A collection of one group: two right answers that are the same, one wrong one, one error; and
    an evaluation, which nobody may train on."""
    answers = [("Answer: 19", True), ("Answer: 19", True), ("Answer: 7", False)]
    path = tmp_path / "t.db"
    with TraceStore.open(path, create=True) as opened:
        for run, kind in (("c", "collect"), ("e", "eval")):
            recipe = {"task": {"system_prompt": "Solve."}}
            opened.start_run(run, kind=kind, recipe=recipe, sampling=Sampling(), policy=VERSION)
            for rollout, (text, right) in enumerate(answers):
                made = trajectory((turn(text),), rollout=rollout, correct=right, answer=text)
                opened.append(made, run_id=run, group_key="g")
            failed = dataclasses.replace(
                trajectory((), rollout=3), stop_reason=StopReason.ERROR, error="x", correct=None
            )
            opened.append(failed, run_id=run, group_key="g")
    return path


PROMPT = [
    {"role": "system", "content": "Solve."},
    {"role": "user", "content": "What is 7 + 3 * 4?"},
]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def train(script, recipe: str, *overrides: str) -> None:
    """`trl sft|dpo --config RECIPE` in this process; two steps (the first warms up at rate 0)."""
    words = ["--config", str(RECIPES / recipe), *overrides]
    words += ["--max_steps", "2", "--use_cpu", "true", "--bf16", "false"]
    script.main(*script.make_parser().parse_args_and_config(words))


def test_answers_of_a_store_are_trained_on_with_sft_then_dpo(
    store, tmp_path, small_model, run_command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    status, out, _ = run_command(
        "traces", "export", store, "runs/sft.parquet", "--as", "sft", "--json"
    )
    assert (status, json.loads(out)["rows"]) == (0, 1)
    (row,) = load_dataset("parquet", data_files="runs/sft.parquet", split="train")
    assert row == {"prompt": PROMPT, "completion": said("Answer: 19")}
    train(sft, "sft.yaml", "--model_name_or_path", str(small_model))

    assert run_command("traces", "export", store, "runs/dpo.parquet", "--as", "dpo")[0] == 0
    (row,) = load_dataset("parquet", data_files="runs/dpo.parquet", split="train")
    assert row == {
        "prompt": PROMPT,
        "chosen": said("Answer: 19"),
        "rejected": said("Answer: 7"),
    }
    train(dpo, "dpo.yaml")

    policies = {identify_policy(f"runs/{name}", dtype="float32").base for name in ("sft", "dpo")}
    assert len({identify_policy(str(small_model), dtype="float32").base, *policies}) == 3


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(["--as", "ppo"], "must be trajectories"), (["--as", "dpo", "--run-id", "e"], "nothing to")],
)
def test_what_cannot_be_exported_is_one_sentence(arguments, rule, store, tmp_path, run_command):
    status, _, error = run_command("traces", "export", store, tmp_path / "x.jsonl", *arguments)
    assert status == 2
    assert rule in error
    assert not (tmp_path / "x.jsonl").exists()
