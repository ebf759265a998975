"""`eapo demo`, smaller: killed in the middle of training, resumed, and run again when done."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eapo_agents.policy.shipped import BEFORE
from eapo_agents.store import TraceStore

pytestmark = pytest.mark.long
ROOT = Path(__file__).parent.parent.parent
SMALLER = {
    "policy.model": BEFORE,
    "task.system_prompt": "''",
    "eval.max_new_tokens": 1,
    "eval.greedy": "false",
    "eval.base_examples": "[]",
    "warm_start.problems": 8,
    "collect.problems": 2,
    "train.steps": 2,
    "train.problems_per_step": 2,
    "train.minibatches_per_step": 1,
}


@pytest.fixture
def start(tmp_path):
    """Starts the demo in the test's folder, with the package's own model from before its training,
    which asks; whatever still runs when the test ends is killed."""
    started: list[subprocess.Popen] = []

    def run() -> subprocess.Popen:
        command = [sys.executable, "-m", "eapo_agents.cli.main", "demo", "--json"]
        command += ["--out", str(tmp_path / "demo")]
        for key, value in SMALLER.items():
            command += ["--set", f"{key}={value}"]
        with (tmp_path / "log").open("a") as err:
            started.append(
                subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True)
            )
        return started[-1]

    yield run
    for process in started:
        process.kill()


def test_a_killed_demo_resumes_and_reports_and_is_safe_to_run_again(start, tmp_path):
    folder, log = tmp_path / "demo", tmp_path / "log"
    running = start()
    # the first live step is done when its checkpoint is there
    checkpoint = folder / "train_live" / "checkpoint-1" / "trainer_state.json"
    deadline = time.monotonic() + 400
    while not checkpoint.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert checkpoint.exists(), log.read_text()[-2000:]
    running.send_signal(signal.SIGKILL)
    running.wait()
    phases = json.loads((folder / "phases.json").read_text())
    assert list(phases) == ["base", "warm_start", "before", "collect", "train_logged"]

    resumed = start()
    out, _ = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, log.read_text()[-2000:]
    report = json.loads(out)
    assert report == json.loads((folder / "report.json").read_text())
    for name in ("base", "before", "after"):
        score = report["scores"][name]["solo"]
        assert 0 <= score["ci95"][0] <= score["score"] <= score["ci95"][1] <= 1
        assert score["n"] == 300
    difference = report["differences"]["after - before, solo"]
    assert difference["ci95"][0] <= difference["difference"] <= difference["ci95"][1]
    assert report["seconds"]["total"] > 0
    assert report["experts"]["calls"] > 0
    assert {"withheld"} <= report["experts"].keys()
    assert report["recipe"] == "cpu-smol-short"
    assert report["model"] == BEFORE
    live = [step for step in report["steps"] if step["phase"] == "train_live"]
    assert [step["step"] for step in live] == [1, 2]
    for step in live:
        assert {"reward", "consultation_rate", "experts/calls"} <= step.keys()
    with TraceStore.open(folder / "traces.db") as store:
        assert all(len(rollouts) == 4 for rollouts in store.have("train_live").values())
    assert (folder / "report.md").read_text().startswith("# EAPO demo")
    assert "<h1>EAPO demo" in (folder / "report.html").read_text()

    again = start()
    out, _ = again.communicate(timeout=100)
    assert json.loads(out) == report
