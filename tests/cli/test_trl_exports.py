"""What `eapo traces export --as sft|dpo` writes is what TRL's own trainers take."""

import dataclasses
import json

import pytest
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from eapo_agents.policy.fresh import make_model
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Sampling, StopReason, Turn

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


def test_right_answers_are_a_dataset_that_sfttrainer_takes(
    store, tmp_path, small_model, run_command
):
    file = tmp_path / "sft.parquet"
    status, out, _ = run_command("traces", "export", store, file, "--as", "sft", "--json")
    assert (status, json.loads(out)["rows"]) == (0, 1)
    data = load_dataset("parquet", data_files=str(file), split="train", cache_dir=tmp_path)
    assert data[0] == {"prompt": PROMPT, "completion": said("Answer: 19")}
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(small_model),
        args=SFTConfig(str(tmp_path / "out"), max_steps=1, report_to=[], use_cpu=True, bf16=False),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(small_model),
    )
    assert trainer.train().training_loss > 0


def test_right_and_wrong_answers_are_a_dataset_that_dpotrainer_takes(
    store, tmp_path, small_model, run_command
):
    file = tmp_path / "dpo.jsonl"
    status, _, _ = run_command("traces", "export", store, file, "--as", "dpo")
    assert status == 0
    (row,) = map(json.loads, file.read_text().splitlines())
    assert row == {
        "prompt": PROMPT,
        "chosen": said("Answer: 19"),
        "rejected": said("Answer: 7"),
    }
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(small_model),
        args=DPOConfig(str(tmp_path / "out"), max_steps=1, report_to=[], use_cpu=True, bf16=False),
        train_dataset=load_dataset("json", data_files=str(file), split="train", cache_dir=tmp_path),
        processing_class=AutoTokenizer.from_pretrained(small_model),
    )
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [(["--as", "ppo"], "must be trajectories"), (["--as", "dpo", "--run-id", "e"], "nothing to")],
)
def test_what_cannot_be_exported_is_one_sentence(arguments, rule, store, tmp_path, run_command):
    status, _, error = run_command("traces", "export", store, tmp_path / "x.jsonl", *arguments)
    assert status == 2
    assert rule in error
    assert not (tmp_path / "x.jsonl").exists()
