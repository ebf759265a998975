"""A real training run and two evaluations of it, and the real server that shows them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from eapo_agents.cli.main import main

SMALL = {
    "policy.fresh": "{layers: 1, width: 32, heads: 2, vocabulary: 320}",
    "sampling.max_new_tokens": 12,
    "warm_start.problems": 24,
    "warm_start.epochs": 12,
    "warm_start.rows_per_step": 8,
    "warm_start.warmup_steps": 0,
    "train.steps": 3,
    "train.problems_per_step": 4,
    "train.minibatches_per_step": 1,
    "train.save_steps": 3,
    "eval.every": 3,
    "eval.problems": 12,
    "eval.max_new_tokens": 12,
}


def run(*words: object) -> None:
    """Runs a command in this process, as its entry point does."""
    before = sys.argv
    sys.argv = ["eapo", *map(str, words)]
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        main()
    except SystemExit as exit_:
        if exit_.code:
            raise AssertionError(words) from exit_
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    """A folder with a training run, `train`, and evaluations, `before` and `after`."""
    folder = tmp_path_factory.mktemp("view") / "runs"
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    recipe = ["--recipe", "scale-model+eapo", *settings]
    run("train", *recipe, "--out", folder / "train")
    (fresh,) = (folder / "train").rglob("fresh/config.json")
    model = ["--set", f"policy={{model: {fresh.parent}, max_batch_size: 64}}"]
    wanted = [*recipe[:2], *settings[2:], *model]
    warm = next(path.parent for path in (folder / "train").rglob("warm/policy/eapo_policy.json"))
    run("eval", *wanted, "--policy", warm, "--out", folder / "before")
    run("eval", *wanted, "--policy", folder / "train" / "policy", "--out", folder / "after")
    return folder


@dataclass(frozen=True, slots=True)
class Viewed:
    """A server that runs, and who may look."""

    process: subprocess.Popen[str]
    url: str
    """With the token."""
    client: httpx2.Client

    @property
    def base(self) -> str:
        return self.url.partition("/?")[0]

    def page(self, path: str, status: int = 200, **query: object) -> str:
        answer = self.client.get(f"{self.base}{path}", params={k: str(v) for k, v in query.items()})
        assert answer.status_code == status, answer.text[-600:]
        return answer.text


@pytest.fixture(scope="session")
def view() -> Iterator[Callable[..., Viewed]]:
    """Starts the command on folders."""
    started: list[Viewed] = []

    def start(*folders: object, env: dict[str, str] | None = None) -> Viewed:
        command = [sys.executable, "-m", "eapo_agents.cli.main", "view", *map(str, folders)]
        process = subprocess.Popen(
            [*command, "--no-open"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        assert url, process.stderr.read()
        client = httpx2.Client(follow_redirects=True, timeout=120)
        found = Viewed(process, url, client)
        assert client.get(url).status_code == 200
        started.append(found)
        return found

    yield start
    for one in started:
        one.client.close()
        one.process.kill()
        one.process.communicate()


@pytest.fixture(scope="session")
def viewed(runs, view) -> Viewed:
    """The server on the real runs."""
    return view(runs)
