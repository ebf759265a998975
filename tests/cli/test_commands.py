"""The commands on the real small model, as a user chains them."""

import dataclasses
import json
import signal
import subprocess
import sys
import time

import pytest

from eapo_agents.store import TraceStore

# the untrained model writes "Answer:" in about one rollout of five: 12 a problem have spread
RECIPE = """
name: small
policy: {model: MODEL}
sampling: {max_new_tokens: 16}
task: {name: problems.jsonl, system_prompt: 'Talk about a problem. Say "Answer: " first.'}
rollouts: {concurrency: 24}
collect: {problems: 2, num_generations: 12}
train: {steps: 1, problems_per_step: 2, num_generations: 12,
        gradient_accumulation_steps: 4, learning_rate: 1.0e-3}
eval: {problems: 2, max_new_tokens: 10}
"""


@pytest.fixture(scope="module")
def project(saved_model, tmp_path_factory):
    """A user's folder: a recipe, and problems whose F1 differs from rollout to rollout."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "small.yaml").write_text(RECIPE.replace("MODEL", str(saved_model)))
    problems = [
        {
            "id": str(number),
            "split": split,
            "question": f"Write the words: Answer: the problem is a number{mark}",
            "answer": "the problem is a number to solve",
            "grader": "f1",
        }
        for split, mark, numbers in (("train", "", (0, 1)), ("heldout", ".", (2, 3)))
        for number in numbers
    ]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)))
    return folder


@pytest.fixture
def eapo(run_command, monkeypatch, project):
    """Runs a command in the project's folder; returns its one JSON object, its output or error."""
    monkeypatch.chdir(project)

    def run(*arguments: object, status: int = 0):
        found, out, err = run_command(*arguments)
        assert found == status, err
        if status:
            return err
        if "--json" in arguments:
            (line,) = out.splitlines()
            return json.loads(line)
        return out

    return run


def leave_logprobs_out(source, target) -> None:
    with TraceStore.open(source) as old, TraceStore.open(target, create=True) as new:
        (run,) = old.runs()
        new.start_run(
            run.run_id, kind=run.kind, recipe=run.recipe, sampling=run.sampling, policy=run.policy
        )
        for stored in old.trajectories():
            turns = tuple(dataclasses.replace(t, logprobs=None) for t in stored.trajectory.turns)
            bare = dataclasses.replace(stored.trajectory, turns=turns)
            new.append(bare, run_id=run.run_id, group_key=stored.group_key)


def test_run_shows_the_answer_and_its_turns(eapo):
    facts = eapo("run", "What is 7 + 3 * 4?", "--recipe", "small.yaml", "--json")
    assert facts["question"] == "What is 7 + 3 * 4?"
    assert facts["turns"][0]["tokens"] > 0
    solo = eapo("run", "What is 7 + 3 * 4?", "--recipe", "small.yaml", "--solo")
    assert solo.strip()


@pytest.mark.long
def test_a_warm_start_makes_a_policy_that_the_other_commands_take(eapo):
    settings = (
        "warm_start={problems: 4, rows_per_step: 6}",
        "task.name=arithmetic",
        "sampling.max_new_tokens=48",
    )
    section = [part for setting in settings for part in ("--set", setting)]
    taught = eapo("warm-start", "--recipe", "small.yaml", *section, "--out", "warm", "--json")
    assert (taught["episodes"], taught["steps"]) == (12, 2)
    asked = ("run", "What is 7 + 3 * 4?", "--recipe", "small.yaml", "--policy", taught["policy"])
    assert eapo(*asked, "--json")["turns"]
    assert "no warm_start section" in eapo("warm-start", "--recipe", "small.yaml", status=2)


@pytest.mark.long
def test_collect_look_train_and_evaluate(eapo, project):
    collect = ("collect", "--recipe", "small.yaml", "--store", "traces.db", "--json")
    first = eapo(*collect)
    assert (first["run_now"], first["rollouts"], first["failed"]) == (24, 24, 0)
    assert eapo(*collect)["run_now"] == 0  # resumed: nothing is repeated

    listed = eapo("traces", "ls", "traces.db", "--limit", 40, "--json")
    assert len(listed["trajectories"]) == 24
    shown = eapo("traces", "show", "traces.db", 1)
    assert "Write the words" in shown
    (stats,) = eapo("traces", "stats", "traces.db", "--json")["runs"]
    assert (stats["trajectories"], stats["groups"]) == (24, 2)
    eapo("traces", "doctor", "traces.db")
    assert eapo("traces", "export", "traces.db", "out.parquet", "--json")["trajectories"] == 24

    train = ("train", "--recipe", "small.yaml", "--from-traces", "traces.db", "--out", "logged")
    for setting, says in (
        ("sampling.temperature=0.5", "temperature is 1 there and 0.5 here"),
        ("policy.dtype=bfloat16", "not by base"),
    ):
        error = eapo(*train, "--set", setting, status=2)
        assert says in error
        assert not (project / "logged").exists()
    leave_logprobs_out(project / "traces.db", project / "bare.db")
    error = eapo("train", "--recipe", "small.yaml", "--from-traces", "bare.db", status=2)
    assert "without logprobs" in error
    assert not (project / "runs" / "train").exists()
    trained = eapo(*train, "--json")
    assert trained["steps"] == 1
    assert eapo(*train, "--json")["weights"] == trained["weights"]  # done before: nothing changes
    assert list((project / "logged" / "runs").rglob("events.*")), "TensorBoard is the default"

    # the trained policy's own traces are not those of its base
    error = eapo(*train[:-1], "logged2", "--policy", trained["policy"], status=2)
    assert "sampled" in error

    before = eapo("eval", "--recipe", "small.yaml", "--out", "before", "--json")
    after = eapo(
        *("eval", "--recipe", "small.yaml", "--out", "after", "--json"),
        *("--policy", trained["policy"], "--baseline", "before"),
    )
    assert before["policy"]["weights"] != after["policy"]["weights"]
    for key in ("problems solo", "problems greedy"):
        score = after["results"][key]
        assert 0 <= score["ci95"][0] <= score["score"] <= score["ci95"][1] <= 1
        assert score["n"] == after["paired"][key]["n"] == 2
    compared = eapo("compare", "before", "after", "--json")
    assert compared["benchmarks"] == after["paired"]


@pytest.mark.long
def test_ctrl_c_in_the_middle_of_sampling_ends_in_130_and_the_same_command_goes_on(eapo, project):
    collect = ("collect", "--recipe", "small.yaml", "--store", "cut.db", "--json")
    command = [sys.executable, "-m", "eapo_agents.cli.main", *collect]
    long = ["--set", "sampling.max_new_tokens=2000"]
    running = subprocess.Popen(
        [*command, *long],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts tests in the background has them ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not (project / "cut.db").exists() and running.poll() is None:
            time.sleep(0.1)
        time.sleep(3)  # the first batch is under way
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert (running.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith("eapo: Interrupted.")
    error = eapo(*collect[:-1], status=2)  # another recipe than the one that was cut off
    assert "started with other settings (sampling)" in error
    assert eapo(*collect, "--run-id", "again")["rollouts"] == 24


@pytest.mark.long
def test_train_live_logs_its_rollouts_and_refuses_another_recipe_s_folder(eapo, project):
    train = ("train", "--recipe", "small.yaml", "--out", "live")
    trained = eapo(*train, "--json")
    (step,) = trained["history"]
    assert step["rollouts"] >= 24
    with TraceStore.open(project / "live" / "traces.db") as store:
        assert sum(1 for _ in store.trajectories("train")) >= 24
    many = ("--set", "train.problems_per_step=4", "--out", "few")
    assert "the task has 2 problems" in eapo(*train[:-2], *many, status=2)
    assert not (project / "few").exists()
    error = eapo(*train, "--set", "train.learning_rate=0.5", status=2)
    assert "holds a run of another recipe" in error


@pytest.mark.long
def test_all_weights_can_be_trained_and_loaded_again(eapo):
    options = ("--recipe", "small.yaml", "--set", "train.lora=null", "--json")
    trained = eapo("train", *options, "--out", "whole")
    evaluated = eapo("eval", *options, "--policy", trained["policy"], "--out", "whole-eval")
    assert evaluated["policy"]["weights"] == trained["weights"]
