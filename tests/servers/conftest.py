"""Real vLLM servers, started by `eapo serve`. `make test-servers` runs these."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eapo_agents.errors import UsageError
from eapo_agents.recipe import Recipe

MODEL = "SmolLM2-135M-Instruct"
SYSTEM = 'Solve the problem. End with "Answer: " and the number.'


class Served:
    """A running `eapo serve`."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.folder = folder
        self.options = options
        self.log = folder / f"{self.port}.log"
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "eapo_agents.cli.main", "serve", "--json", *self.options]
        command += ["--port", str(self.port), "--log", str(self.log)]
        command += ["--max-model-len", "2048"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.process.stderr.read())
        self.facts = json.loads(line)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As if the machine had gone: kill -9 of vLLM and of what keeps it."""
        os.kill(self.process.pid, signal.SIGKILL)
        os.killpg(self.facts["pid"], signal.SIGKILL)
        self.process.wait()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and is_open(self.port):
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def needs_vllm():
    from eapo_agents.serving.find_vllm import find_vllm

    try:
        find_vllm()
    except UsageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def recipe_file(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "vllm.yaml"
    file.write_text(recipe_text())
    return file


def recipe_text() -> str:
    return f"""
name: vllm-test
policy: {{model: {MODEL}}}
sampling: {{max_new_tokens: 24}}
task: {{system_prompt: '{SYSTEM}'}}
consult:
  experts: {{solver: {{kind: solver}}}}
  acceptance: {{kind: constant, start: 0.5}}
  turns: {{start: 2, end: 2}}
rollouts: {{concurrency: 16}}
collect: {{problems: 8, num_generations: 4}}
train: {{steps: 3, problems_per_step: 2, num_generations: 2, gradient_accumulation_steps: 1,
         learning_rate: 1.0e-3,
         lora: {{r: 8, alpha: 16}}, internalise: {{hint_stripped_weight: 1.0}}, report_to: []}}
"""


@pytest.fixture
def make_recipe():
    """Makes the recipe with these servers and settings of the policy."""
    import yaml

    def make(*servers: str, changes: dict[str, object] | None = None, **policy: object) -> Recipe:
        facts = {**yaml.safe_load(recipe_text()), **(changes or {})}
        facts["policy"] |= {"servers": list(servers), **policy}
        if servers:  # a server that starts beside other tests on two slow cores takes minutes
            facts["policy"].setdefault("server_wait_s", 900.0)
        return Recipe.model_validate(facts)

    return make


class Serve:
    """Starts servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[Served] = []

    def __call__(self, *options: str, port: int | None = None) -> Served:
        self.started.append(Served(self.folder, *options, port=port))
        return self.started[-1]

    def two(self, *options: str) -> list[Served]:
        """Two at once: starting takes one core each."""
        ports = [free_port(), free_port()]
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda port: self(*options, port=port), ports))


@pytest.fixture
def serve(needs_vllm, tmp_path):
    """Starts servers that end with the test."""
    start = Serve(tmp_path)
    yield start
    for served in start.started:
        if served.process.poll() is None:
            served.stop()


@pytest.fixture(scope="session")
def server(needs_vllm, recipe_file, tmp_path_factory):
    """bfloat16, takes adapters up to rank 8."""
    folder = tmp_path_factory.mktemp("server")
    served = Served(folder, "--recipe", str(recipe_file), "--dtype", "bfloat16")
    yield served
    assert served.stop() == 0
    assert not is_open(served.port)


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """URL of a database on a cluster of its own."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    programs = found[-1].parent if found else Path(shutil.which("initdb") or "/none").parent
    if not (programs / "initdb").exists():
        pytest.skip("PostgreSQL is needed: apt-get install postgresql")
    # PostgreSQL refuses to run as root
    user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    folder = Path("/tmp") / f"eapo-pg-{os.getpid()}"
    folder.mkdir(mode=0o755)
    if user:
        shutil.chown(folder, "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "eapo", "--auth=trust"],
        check=True, capture_output=True, **user,
    )  # fmt: skip
    options = ["-D", data, "-p", str(port), "-k", folder, "-c", "fsync=off"]
    server = subprocess.Popen(
        [programs / "postgres", *options, "-c", "listen_addresses=127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **user,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-q"]
        while subprocess.run(ready).returncode and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"postgresql+psycopg://eapo@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
