"""Commands that are ended and given again, a finished run, a folder in use."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from eapo_agents.errors import UsageError
from eapo_agents.interrupts import end_on_sigterm
from eapo_agents.runs.folder import read_history
from eapo_agents.runs.lock import locked
from eapo_agents.store import TraceStore

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def recipe(tmp_path, monkeypatch, small_task):
    """A recipe around a model of a few thousand weights, in the working folder."""
    small_task(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    train = {
        "steps": 2,
        "problems_per_step": 2,
        "num_generations": 4,
        "minibatches_per_step": 1,
        "gradient_accumulation_steps": 1,
        "lora": None,
        "report_to": [],
        "dynamic_sampling_retries": 0,
    }
    data = {
        "name": "small",
        "policy": {"model": str(tmp_path / "model")},
        "sampling": {"max_new_tokens": 64},
        "task": {"name": "small_task:problems", "reward": "small_task:reward", "system_prompt": ""},
        "consult": {"experts": {"solver": {"kind": "solver"}}},
        "collect": {"problems": 4, "num_generations": 4},
        "train": train,
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def contents(folder):
    return {p: p.read_bytes() for p in Path(folder).rglob("*") if p.is_file() and p.name != ".lock"}


def num_trajectories(store):
    with TraceStore.open(store) as opened:
        return len(list(opened.trajectories()))


def test_a_finished_live_run_says_so_changes_nothing_and_continues_with_more_steps(
    recipe, run_command
):
    words = ["train", "-r", recipe, "--out", "run"]
    assert run_command(*words)[0] == 0
    before = contents("run")
    status, _, told = run_command(*words)
    assert (status, contents("run")) == (0, before)
    assert "is finished" in told
    assert run_command(*words, "--set", "train.steps=3")[0] == 0
    assert [step["step"] for step in read_history(Path("run"))] == [1, 2, 3]
    assert num_trajectories("run/traces.db") == 3 * 2 * 4


def test_a_finished_run_on_traces_says_so_and_other_traces_are_refused(recipe, run_command):
    assert run_command("collect", "-r", recipe, "--store", "t.db")[0] == 0
    status, _, told = run_command("collect", "-r", recipe, "--store", "t.db")
    assert status == 0
    assert "is finished" in told
    words = ["train", "-r", recipe, "--out", "run", "--from-traces", "t.db"]
    assert run_command(*words)[0] == 0
    before = contents("run")
    status, _, told = run_command(*words)
    assert (status, contents("run")) == (0, before)
    assert "is finished" in told
    more = ["--run-id", "more", "--set", "seed=1"]
    assert run_command("collect", "-r", recipe, "--store", "t.db", *more)[0] == 0
    status, _, told = run_command(*words)
    assert (status, contents("run")) == (2, before)
    assert "holds a run on other traces" in told
    status, _, told = run_command(*words[:-2])
    assert status == 2
    assert "holds a run o" in told


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["eval", "--limit", "4"],
        ["warm-start", "--set", "warm_start.problems=4"],
        ["demo", "--set", "warm_start.problems=4", "--set", "eval.problems=300"],
    ],
)
def test_a_folder_in_which_another_process_works_is_refused_in_one_sentence(
    recipe, run_command, command
):
    with locked(Path("run")):
        status, _, told = run_command(*command, "-r", recipe, "--out", "run")
        assert status == 2
        assert "Another process works in 'run'" in told
        with pytest.raises(UsageError), locked(Path("run")):
            pass
    with locked(Path("run")):
        pass


@pytest.mark.parametrize("deaf", [False, True])
def test_sigterm_is_an_interrupt_also_in_the_background_where_ctrl_c_is_ignored(deaf):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    try:
        end_on_sigterm()
        if deaf:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
def test_commands_ended_at_random_moments_come_to_what_unbroken_runs_come_to():
    """Two moments a command: a kill -9 and a Ctrl-C. The script tries twenty."""
    script = ROOT / "benchmarks" / "kill_and_resume.py"
    words = ["--moments", "2", "--commands", "collect,eval,train,distillation"]
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4
