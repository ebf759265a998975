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

SCRIPT = Path(__file__).parent / "step_once.py"
ROOT = Path(__file__).parents[2]


def step_once(folder: Path, num_processes: int) -> tuple[dict, dict[str, torch.Tensor]]:
    folder.mkdir()
    # `--cpu` would start one process: accelerate leaves several on a CPU to MPI
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes", str(num_processes), "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command = [*launch, str(SCRIPT)] if num_processes > 1 else [sys.executable, str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
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


def test_groups_that_cannot_be_shared_out_are_refused(monkeypatch, recipe, tmp_path):
    from trainers import run

    class Three:
        num_processes = 3
        process_index = 0

    monkeypatch.setattr(run, "processes", lambda recipe: Three())
    with pytest.raises(RecipeError, match=r"must divide by the number of processes \(3\)"):
        run.grpo_config(recipe, tmp_path, 1)
