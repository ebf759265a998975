"""`train.report_to`: what a run reports is read back with each tracker's own library, offline."""

import json
import os
import struct
import subprocess
import sys
from importlib.util import find_spec

import pytest
import yaml

from eapo_agents.errors import RecipeError
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.folder import read_history
from eapo_agents.runs.training import dry_run, train

INSTALLED = [name for name in ("tensorboard", "wandb", "mlflow", "trackio") if find_spec(name)]


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_task):
    """A training of two steps with a model of a few thousand weights; (folder, its history)."""
    folder = tmp_path_factory.mktemp("trackers")
    small_task(folder)
    recipe = {
        "name": "small",
        "policy": {"model": str(folder / "model")},
        "sampling": {"max_new_tokens": 64},
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
        "TRACKIO_DIR": str(folder / "trackio"),
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


NAMES = ("reward", "sampled_tokens")


def expected(history):
    """Metric -> its value at each step, as the run's own file has it."""
    assert len(history) == 2
    assert all(step["sampled_tokens"] > 0 for step in history)
    return {name: [pytest.approx(step[name], rel=1e-6) for step in history] for name in NAMES}


def test_tensorboard_has_the_metrics_of_each_step(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, history = run
    (events,) = folder.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events))
    read.Reload()
    found = {name: [one.value for one in read.Scalars(f"train/eapo/{name}")] for name in NAMES}
    assert found == expected(history)


def wandb_records(file):
    """The records of a run that W&B has not uploaded yet: a log as LevelDB writes it."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, whole = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield whole
            whole = b""


@pytest.mark.skipif("wandb" not in INSTALLED, reason="needs wandb (extra `trackers`)")
def test_weights_and_biases_has_the_metrics_of_each_step(run):
    from wandb.proto.wandb_internal_pb2 import Record

    folder, history = run
    (file,) = folder.rglob("*.wandb")
    found = {name: [] for name in NAMES}
    for data in wandb_records(file):
        record = Record()
        record.ParseFromString(data)
        for item in record.history.item:
            key = item.key or "/".join(item.nested_key)
            if key.removeprefix("train/eapo/") in found:
                found[key.removeprefix("train/eapo/")].append(json.loads(item.value_json))
    assert found == expected(history)


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="needs mlflow (extra `trackers`)")
def test_mlflow_has_the_metrics_of_each_step(run, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder, history = run
    client = MlflowClient(tracking_uri=f"file://{folder}/mlruns")
    (experiment,) = client.search_experiments()
    (only,) = client.search_runs([experiment.experiment_id])
    found = {
        name: [
            one.value
            for one in sorted(
                client.get_metric_history(only.info.run_id, f"eapo/{name}"), key=lambda m: m.step
            )
        ]
        for name in NAMES
    }
    assert found == expected(history)


READ_TRACKIO = """
import json, sys
from trackio import Api
from trackio.sqlite_storage import SQLiteStorage as Storage

(project,) = Storage.get_projects()
(run,) = Api().runs(project)
print(json.dumps(Storage.get_logs(project, run.name, run_id=run.id)))
"""


@pytest.mark.skipif("trackio" not in INSTALLED, reason="needs trackio (extra `trackers`)")
def test_trackio_has_the_metrics_of_each_step(run):
    folder, history = run
    done = subprocess.run(  # Trackio asks where its files are when it is imported
        [sys.executable, "-c", READ_TRACKIO],
        env={**os.environ, "TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logs = json.loads(done.stdout)
    found = {
        name: [one[key] for one in logs if (key := f"train/eapo/{name}") in one] for name in NAMES
    }
    assert found == expected(history)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wandbb", r"train.report_to has 'wandbb', which is no tracker. There are .*, wandb\."),
        ("comet_ml", "train.report_to has 'comet_ml', which cannot be used here: .*pip install"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused_before_the_warm_start(name, said, tmp_path):
    recipe = load_recipe("scale-model+eapo", [f"train.report_to=[{name}]"])
    for start in (lambda: train(recipe, tmp_path / "run"), lambda: dry_run(recipe, 1)):
        with pytest.raises(RecipeError, match=said):
            start()
    assert not list(tmp_path.iterdir())
