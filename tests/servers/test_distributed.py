"""Training on several processes, as on several GPUs: here two on the CPU, with gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eapo_agents.errors import RecipeError
from eapo_agents.store import TraceStore

SCRIPT = Path(__file__).parent / "step_once.py"
ROOT = Path(__file__).parents[2]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def launch(num_processes: int) -> list[str]:
    # `--cpu` would start one process: accelerate leaves several on a CPU to MPI
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += ["--num_processes", str(num_processes), "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    return [*command, "--main_process_port", "0"]


def step_once(folder: Path, num_processes: int) -> tuple[dict, dict[str, torch.Tensor]]:
    folder.mkdir()
    command = launch(num_processes) if num_processes > 1 else [sys.executable]
    command += [str(SCRIPT), str(folder)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["processes"] == num_processes
    return facts, torch.load(folder / "gradients.pt")


def test_two_processes_take_the_same_step_as_one(tmp_path):
    alone, gradients = step_once(tmp_path / "1", 1)
    together, of_two = step_once(tmp_path / "2", 2)
    assert gradients.keys() == of_two.keys()
    largest = max(float(g.abs().max()) for g in gradients.values())
    difference = max(float((gradients[n] - of_two[n]).abs().max()) for n in gradients)
    print(f"loss {alone['loss']:.6f} {together['loss']:.6f}, gradients to {difference:.2e}")
    assert largest > 1e-3
    assert difference < 1e-4 * max(1.0, largest)
    assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)
    (told,), (told_of_two,) = alone["told"], together["told"]
    assert told_of_two == pytest.approx(told, rel=1e-4)


def test_the_command_trains_on_two_processes_and_tells_it_once(saved_model, tmp_path):
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        f"""
name: two
policy: {{model: {saved_model}}}
sampling: {{max_new_tokens: 8}}
train: {{steps: 2, problems_per_step: 2, num_generations: 2, gradient_accumulation_steps: 1,
         dynamic_sampling_retries: 1,
         internalise: {{hint_stripped_weight: 1.0}}, report_to: []}}
"""
    )
    command = [*launch(2), "-m", "eapo_agents.cli.main", "train", "--json"]
    command += ["--recipe", str(recipe), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (told["steps"], told["rollouts"]) == (2, 16)
    with TraceStore.open(tmp_path / "out" / "traces.db") as store:
        found = [stored.trajectory for stored in store.trajectories("train")]
    # two problems a step and two that were drawn again, none of them twice
    assert len({(t.global_step, t.problem.id, t.rollout) for t in found}) == 16


def test_groups_that_cannot_be_shared_out_are_refused(monkeypatch, recipe, tmp_path):
    from trainers import trl_arguments

    class Three:
        num_processes = 3
        process_index = 0

    monkeypatch.setattr(trl_arguments, "processes", lambda recipe: Three())
    with pytest.raises(RecipeError, match=r"must divide by the number of processes \(3\)"):
        trl_arguments.grpo_config(recipe, tmp_path, 1)
