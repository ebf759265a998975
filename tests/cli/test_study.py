"""`eapo study` on a fresh model: the scale model's three main arms for a few steps, killed in the
middle and resumed; its report; `eapo watch`."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from eapo_agents.runs.folder import EVALS, STEPS, read_history
from eapo_agents.runs.job_progress import TRAINING, JobProgress, doing
from eapo_agents.store import TraceStore
from eapo_agents.types import Role

ROOT = Path(__file__).parent.parent.parent
SMALLER = {
    "policy.fresh": "{layers: 1, width: 32, heads: 2, vocabulary: 320}",
    "warm_start.problems": 40,
    "warm_start.epochs": 3,
    "train.steps": 4,
    "train.save_steps": 1,
    "train.problems_per_step": 4,
    "train.minibatches_per_step": 1,
    "eval.problems": 20,
    "eval.every": 2,
    "eval.greedy": "false",
    "eval.max_new_tokens": 16,
}
ARMS = ["self-exploration", "eapo", "distillation"]


def command(out: Path) -> list[str]:
    words = [sys.executable, "-m", "eapo_agents.cli.main", "study", "scale-model", "--json"]
    words += ["--arms", ",".join(ARMS), "--seeds", "1", "--jobs", "1", "--out", str(out)]
    for key, value in SMALLER.items():
        words += ["--set", f"{key}={value}"]
    return words


@pytest.fixture(scope="module")
def study(tmp_path_factory, killed_and_given_again):
    """A whole study, killed with -9 once, in the middle of an arm's training."""
    out = tmp_path_factory.mktemp("study") / "out"
    steps = out / "seed-0" / "eapo" / "steps.jsonl"
    return out, *killed_and_given_again(command(out), out, steps, 2)


@pytest.mark.long
def test_a_killed_study_goes_on_without_doing_anything_twice(study):
    out, report, done_before = study
    assert (out / "seed-0" / "self-exploration" / "result.json") in done_before
    assert all(path.stat().st_mtime_ns == at for path, at in done_before.items())
    assert list(report["arms"]) == ARMS
    with TraceStore.open(out / "seed-0" / "eapo" / "traces.db") as store:
        keys = [(s.group_key, s.trajectory.rollout) for s in store.trajectories(run_id="train")]
    recipe_rollouts = 4 * 4 * 4  # steps, problems a step, rollouts a problem
    assert len(keys) == len(set(keys)) == recipe_rollouts


@pytest.mark.long
def test_a_study_that_is_piped_says_which_jobs_run_and_how_far_they_are(study):
    said = (study[0].parent / "log").read_text()
    assert re.search(r"Study \(jobs\): 0 of 4, \d+ s, base, seed 0: (?:starting|Warm start)", said)


@pytest.mark.long
def test_the_curve_of_a_killed_run_is_that_of_an_unbroken_one(study):
    killed, _, _ = study
    unbroken = killed.parent / "unbroken"
    words = ["eapo" if word == ",".join(ARMS) else word for word in command(unbroken)]
    subprocess.run(words, cwd=ROOT, capture_output=True, check=True)
    steps, evals = (
        [read_history(out / "seed-0" / "eapo", name) for out in (killed, unbroken)]
        for name in (STEPS, EVALS)
    )
    assert len(steps[0]) == 4
    assert [step.keys() for step in steps[0]] == [step.keys() for step in steps[1]]
    for one, other in zip(*steps, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert evals[0] == evals[1]


@pytest.mark.long
def test_a_study_of_a_user_s_graph(tmp_path):
    words = ["eapo" if word == ",".join(ARMS) else word for word in command(tmp_path)]
    words += ["--graph", "docs.examples.fading_expert:build", "--set", "train.steps=1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with TraceStore.open(tmp_path / "seed-0" / "eapo" / "traces.db") as store:
        roles = [s.trajectory.role for s in store.trajectories(run_id="train")]
    assert {Role.OWN, Role.SOLO} == set(roles)


@pytest.mark.long
def test_each_arm_does_what_it_is_for(study):
    _, report, _ = study
    alone, eapo, taught = (report["arms"][arm]["seeds"][0] for arm in ARMS)
    assert all(run["steps"] == 4 for run in (alone, eapo, taught))
    assert all([step for step, _ in run["curve"]] == [0, 2, 4] for run in (alone, eapo, taught))
    assert alone["expert_calls"] == 0
    assert taught["expert_calls"] == 16
    assert taught["sampled_tokens"] == 0
    assert alone["sampled_tokens"] > 0
    assert alone["assisted"] is not None
    assert {d["arm"] for d in report["differences"]} == {"eapo", "distillation"}


@pytest.mark.long
def test_with_experts_a_turn_may_be_as_long_as_in_training(study):
    """A query needs more tokens than an answer alone."""
    out, _, _ = study
    longest = {}
    with TraceStore.open(out / "seed-0" / "eapo" / "traces.db") as store:
        for stored in store.trajectories():
            kind = stored.run_id.partition("/")[0]
            longest[kind] = stored.trajectory.sampling.max_new_tokens
    assert longest == {"eval": 16, "assisted": 32, "train": 32}


@pytest.mark.long
def test_the_report_is_a_page_with_plots_and_a_table(study, run_command):
    out, report, _ = study
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 6
    assert "<script" not in page
    assert "| self-exploration | 1 |" in (out / "report.md").read_text()
    status, printed, _ = run_command("report", out / "seed-0" / "eapo", "--json")
    assert status == 0
    assert json.loads(printed)["arms"]["eapo"]["after"] == report["arms"]["eapo"]["after"]


@pytest.mark.long
def test_watch_shows_every_run(study, run_command):
    out, _, _ = study
    status, printed, _ = run_command("watch", out, "--once")
    assert status == 0
    assert all(f"{arm}, seed 0" in printed for arm in ARMS)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere jobs outlive a killed study")
def test_jobs_do_not_outlive_a_study_that_is_killed(tmp_path):
    """Or they would go on beside those of the study that is run again."""
    study = psutil.Popen(command(tmp_path / "out"), cwd=ROOT, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (jobs := study.children()) or "study_job" not in " ".join(jobs[0].cmdline()):
        assert time.monotonic() < until
        time.sleep(0.05)
    study.kill()
    gone, alive = psutil.wait_procs(jobs, timeout=30)
    assert (len(gone), alive) == (1, [])


@pytest.mark.long
def test_a_folder_holds_one_study(study, run_command, monkeypatch):
    out, _, _ = study
    monkeypatch.chdir(ROOT)
    status, _, error = run_command("study", "cpu-smol", "--arms", "eapo", "--out", out)
    assert status == 2
    assert "another recipe" in error


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["study", "scale-model", "--arms", "epo"], "no arm 'epo'"),
        (["study", "scale-model", "--arms", "eapo,eapo"], "must differ"),
        (["train", "-r", "scale-model+offline"], "--from-traces"),
        (["report", "nowhere"], "holds no run"),
        (["watch", "nowhere"], "holds no run"),
    ],
)
def test_bad_input_is_one_sentence(arguments, rule, run_command, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    more = ["--out", tmp_path / "out"] if arguments[0] in ("study", "train") else []
    status, _, error = run_command(*arguments, *more)
    assert status == 2
    assert rule in error
    assert not (tmp_path / "out").exists()


def test_what_a_job_does_is_told_while_it_does_it(tmp_path):
    progress = JobProgress(tmp_path)
    assert doing(tmp_path) == ""
    with progress.bar("  solo", 12) as bar:
        assert doing(tmp_path) == "solo: 0 of 12"
        bar.step()  # told once a second at most
        assert doing(tmp_path) == "solo: 0 of 12"
    assert doing(tmp_path) == ""
    with progress.bar(TRAINING, 12) as bar:
        bar.step()
        assert doing(tmp_path) == ""  # steps.jsonl has it
