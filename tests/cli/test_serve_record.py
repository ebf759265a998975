"""`eapo serve --record` as a process: it says where it listens, records, and ends with a signal."""

import json
import os
import signal
import subprocess
import sys

import pytest
from openai import OpenAI

from eapo_agents.policy.fresh import make_model
from eapo_agents.recipe_file import load_recipe
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from trainers.warm_start_episodes import script_texts


def test_it_serves_until_a_signal_and_keeps_what_was_said(tmp_path, unused_tcp_port):
    problems = load_problems("arithmetic", split="train", limit=8, seed=0)
    texts = script_texts(load_recipe("scale-model"), problems)
    make_model(tmp_path / "tiny", texts, layers=1, width=32, heads=2, vocabulary=320, seed=0)
    words = [sys.executable, "-m", "eapo_agents.cli.main", "serve", "-r", "scale-model", "--json"]
    words += ["--set", f"policy={{model: {tmp_path / 'tiny'}, fresh: null}}"]
    words += ["--set", "sampling.max_new_tokens=6", "--set", "consult.experts={}"]
    words += ["--record", str(tmp_path / "t.db"), "--port", str(unused_tcp_port)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        told = json.loads(server.stdout.readline())
        with OpenAI(base_url=f"{told['url']}/v1", api_key="none") as client:
            asked = [{"role": "user", "content": problems[0].question}]
            client.chat.completions.create(model=told["model"], messages=asked)
        os.kill(server.pid, signal.SIGTERM)
        said, errors = server.communicate(timeout=120)
    finally:
        server.kill()
    assert server.returncode == 0, errors
    assert json.loads(said)["rollouts"] == 1
    with TraceStore.open(tmp_path / "t.db") as store:
        (kept,) = store.trajectories(told["run_id"])
    assert kept.trajectory.problem.id == problems[0].id
    assert kept.trajectory.reward is not None


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--expert", "solver"], "--expert is of vLLM's servers"),
        (["--dtype", "float32"], "--dtype is of vLLM's servers"),
        (["--host", "0.0.0.0"], "other machines can reach the policy"),
        (["--host", "0.0.0.0", "--key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["--idle", "0"], "--idle"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(words, rule, run_command, tmp_path):
    status, _, told = run_command("serve", "--record", tmp_path / "t.db", *words)
    assert (status, rule in told) == (2, True), told
    assert not (tmp_path / "t.db").exists()
