"""`eapo serve` as a program: whole models that follow a run, experts, and what it says when it
cannot serve."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

import httpx2
import torch
from openai import OpenAI

from eapo_agents.policy.fingerprint import policy_fingerprint
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from graphs.agent import load_agent
from trainers.run import train_live

from .conftest import is_open

MODEL = "SmolLM2-135M-Instruct"


def test_servers_that_follow_a_run_restart_one_by_one_with_a_whole_model(
    serve, recipe_file, make_recipe, tmp_path
):
    run = tmp_path / "run"
    run.mkdir()
    options = ("--recipe", str(recipe_file), "--dtype", "float32", "--follow", str(run))
    servers = serve.two(*options, "--max-lora-rank", "0")
    train = {
        "steps": 1, "problems_per_step": 2, "num_generations": 2, "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4, "lora": None, "report_to": [],
        "internalise": {"hint_stripped_weight": 1.0},
    }  # fmt: skip
    reward = {"system_prompt": "Solve it.", "format_reward": 0.5}
    recipe = make_recipe(*(s.url for s in servers), changes={"train": train, "task": reward})
    agent = load_agent(recipe)
    base = agent.engine.policy_version
    with torch.no_grad():  # other weights than those that are served: all must restart
        agent.model.model.norm.weight.mul_(1.05)
    with TraceStore.open(str(run / "traces.db"), create=True) as store:
        store.start_run(
            "train", kind="train", recipe=recipe.model_dump(mode="json"),
            sampling=agent.sampling, policy=base,
        )  # fmt: skip
        problems = load_problems("arithmetic", split="train", limit=8, seed=0)
        with _watching(servers) as num_up:
            train_live(agent, problems, store, run, "train", lambda step, metrics: None)
        found = [stored.trajectory for stored in store.trajectories("train")]
    assert [t.error for t in found] == [None] * len(found)
    version = agent.engine.policy_version
    assert version.weights == policy_fingerprint(agent.model, base.base) != base.weights
    assert {t.policy.weights for t in found} == {version.weights}, "sampled by what was published"
    for served in servers:
        models = httpx2.get(served.url + "/v1/models").json()["data"]
        assert [m["id"] for m in models] == [f"{MODEL}@{version.weights}"]
    assert min(num_up) >= 1, "one always serves"
    assert 1 in num_up, "they have restarted"


class _watching:
    """Counts, several times a second, how many of the servers are healthy."""

    def __init__(self, servers) -> None:
        self.servers = servers
        self.seen: list[int] = []
        self.ended = threading.Event()

    def __enter__(self) -> list[int]:
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self.seen

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.ended.wait(0.2):
            self.seen.append(sum(map(self._is_healthy, self.servers)))

    def _is_healthy(self, served) -> bool:
        try:
            return httpx2.get(served.url + "/health", timeout=30.0).status_code == 200
        except httpx2.HTTPError:
            return False


def test_an_expert_is_served_to_any_client_that_has_the_key_and_outlives_no_killed_command(
    serve, recipe_file, monkeypatch
):
    monkeypatch.setenv("EXPERT_KEY", "s3cret-of-ours")
    served = serve(
        "--recipe", str(recipe_file), "--expert", MODEL, "--name", "helper",
        "--key-env", "EXPERT_KEY",
    )  # fmt: skip
    said = [{"role": "user", "content": "What is 2 + 3?"}]
    client = OpenAI(base_url=served.url + "/v1", api_key="s3cret-of-ours", max_retries=0)
    answer = client.chat.completions.create(model="helper", messages=said, max_tokens=8)
    assert answer.choices[0].message.content
    refused = httpx2.get(served.url + "/v1/models", headers={"Authorization": "Bearer guess"})
    assert refused.status_code == 401
    assert "s3cret-of-ours" not in served.log.read_text()
    served.process.kill()
    served.process.wait()
    deadline = time.monotonic() + 60
    while is_open(served.port):
        assert time.monotonic() < deadline, json.dumps(served.facts) + " is still there"
        time.sleep(0.2)


def run_serve(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "eapo_agents.cli.main", "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=900)


def test_a_server_that_fails_gives_its_logs_reason(needs_vllm, recipe_file, tmp_path):
    log = str(tmp_path / "log")
    common = ("--recipe", str(recipe_file), "--log", log)
    failed = run_serve(*common, "--", "--nonsense")
    assert failed.returncode == 2, failed.stderr
    assert "unrecognized arguments: --nonsense" in failed.stderr.splitlines()[-1]
    assert log in failed.stderr
    long = run_serve(*common, "--max-model-len", "100000000")
    assert long.returncode == 2, long.stderr
    assert "max_model_len" in long.stderr.splitlines()[-1], long.stderr


def test_a_taken_port_and_an_unknown_expert_are_refused_at_once(needs_vllm, recipe_file):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = run_serve("--recipe", str(recipe_file), "--port", port)
    assert failed.returncode == 2
    assert f"127.0.0.1:{port} cannot be served at" in failed.stderr
    started = time.monotonic()
    solver = run_serve("--recipe", str(recipe_file), "--expert", "solver")
    assert solver.returncode == 2
    assert "of kind solver: only openai-chat experts are served" in solver.stderr
    assert time.monotonic() - started < 30
    both = run_serve("--recipe", str(recipe_file), "--expert", "solver", "--policy", "x")
    assert "Only one of --policy, --expert and --follow" in both.stderr
