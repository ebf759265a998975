"""`train.report_to`: what a run reports is read back with each tracker's own library, offline."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from eapo_agents.policy.fresh import make_model
from eapo_agents.runs.folder import read_history

TASK = """
from eapo_agents.types import Problem

def problems(split):
    return [
        Problem(id=f"{split}-{n}", question=f"What is {split} {n}?", answer=str(n), grader="exact")
        for n in range(4)
    ]

def reward(answer, problem):
    return 0.0 if answer is None else (1 + sum(map(ord, answer)) % 4) / 4
"""
INSTALLED = [name for name in ("tensorboard", "wandb", "mlflow") if find_spec(name)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A training of two steps with a model of a few thousand weights; (folder, its history)."""
    folder = tmp_path_factory.mktemp("trackers")
    texts = ["What is 1 + 2 * 3? Answer: 7 4 5 6 8 9 0"] * 20
    make_model(folder / "model", texts, layers=1, width=16, heads=2, vocabulary=300, seed=0)
    (folder / "small_task.py").write_text(TASK)
    recipe = {
        "name": "small",
        "policy": {"model": str(folder / "model")},
        "sampling": {"max_new_tokens": 16},
        "task": {"name": "small_task:problems", "reward": "small_task:reward", "system_prompt": ""},
        "consult": {"experts": {"solver": {"kind": "solver"}}},
        "train": {
            "steps": 2,
            "problems_per_step": 2,
            "num_generations": 4,
            "minibatches_per_step": 1,
            "gradient_accumulation_steps": 1,
            "lora": None,
            "dynamic_sampling_retries": 0,
            "report_to": INSTALLED,
        },
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    offline = {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "MLFLOW_TRACKING_URI": f"file://{folder}/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(folder),
    }
    done = subprocess.run(
        [sys.executable, "-m", "eapo_agents.cli.main", "train", "-r", "r.yaml", "--out", "run"],
        cwd=folder,
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, read_history(folder / "run")


def rewards_of(history):
    return [pytest.approx(step["reward"], abs=1e-6) for step in history if "reward" in step]


def test_tensorboard_has_the_reward_of_each_step(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, history = run
    (events,) = folder.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events))
    read.Reload()
    assert [event.value for event in read.Scalars("train/reward")] == rewards_of(history)


@pytest.mark.skipif("wandb" not in INSTALLED, reason="needs wandb (extra `trackers`)")
def test_weights_and_biases_has_the_reward_of_each_step(run):
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    folder, history = run
    (file,) = folder.rglob("*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    found = []
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        items = {item.key or "/".join(item.nested_key): item for item in record.history.item}
        if "train/reward" in items:
            found.append(float(items["train/reward"].value_json))
    assert found == rewards_of(history)


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="needs mlflow (extra `trackers`)")
def test_mlflow_has_the_reward_of_each_step(run):
    from mlflow.tracking import MlflowClient

    folder, history = run
    client = MlflowClient(tracking_uri=f"file://{folder}/mlruns")
    found = [
        one
        for experiment in client.search_experiments()
        for one in client.search_runs([experiment.experiment_id])
    ]
    (only,) = found
    measured = sorted(client.get_metric_history(only.info.run_id, "reward"), key=lambda m: m.step)
    assert [one.value for one in measured] == rewards_of(history)
