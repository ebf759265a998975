"""A real training run, evaluations of it, and the real server that shows them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from eapo_agents.cli.main import main
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, Trajectory

SMALL = {
    "policy.fresh": "{layers: 2, width: 48, heads: 2, vocabulary: 320}",
    "warm_start.problems": 24,
    "warm_start.epochs": 8,
    "warm_start.rows_per_step": 32,
    "warm_start.warmup_steps": 10,
    "train.steps": 2,
    "train.problems_per_step": 4,
    "train.minibatches_per_step": 1,
    "train.save_steps": 2,
    "eval.every": 1,
    "eval.problems": 12,
}
RIGHT = 3
"""Problems that `after` has right, other ones than `before`."""


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
    """A folder with a training run, `train`, and evaluations, `before` and `after`.

    So small a model is never right. So the training's store has a second run, `helped`, of a real
    group in which one rollout that asked counts as right, and the evaluations' verdicts are changed
    for some problems, in their files.
    """
    folder = tmp_path_factory.mktemp("view") / "runs"
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    recipe = ["--recipe", "scale-model+eapo", *settings]
    run("train", *recipe, "--out", folder / "train")
    add_helped_run(folder / "train" / "traces.db")
    model = f"policy={{model: {folder / 'train' / 'fresh'}, max_batch_size: 64}}"
    policy = folder / "train" / "policy"
    wanted = [*recipe[:2], *settings[2:], "--set", model]
    run("eval", *wanted, "--policy", policy, "--out", folder / "before")
    shutil.copytree(folder / "before", folder / "after")
    set_right(folder / "before", range(1, 2))
    set_right(folder / "after", range(2, 2 + RIGHT))
    return folder


def add_helped_run(file: Path) -> None:
    with TraceStore.open(file) as store:
        (info,) = [one for one in store.runs() if one.kind == "train"]
        stored = list(store.trajectories(info.run_id))
        asked = next(s for s in stored if was_helped(s.trajectory))
        group = [s for s in stored if s.group_key == asked.group_key]
        facts = {"recipe": info.recipe, "sampling": info.sampling, "policy": info.policy}
        store.start_run("helped", kind="collect", **facts)
        for one in group:
            right = one.id == asked.id
            changed = replace(one.trajectory, correct=right, reward=float(right))
            store.append(changed, run_id="helped", group_key=one.group_key)


def was_helped(trajectory: Trajectory) -> bool:
    accepted = ConsultationStatus.ACCEPTED
    return len(trajectory.turns) > 1 and any(
        c.status is accepted for turn in trajectory.turns for c in turn.consultations
    )


def set_right(folder: Path, problems: range) -> None:
    """Changes the verdicts of an evaluation in its files: these problems are right, no others."""
    items, results = folder / "items.jsonl", folder / "results.json"
    lines = [json.loads(line) for line in items.read_text().splitlines()]
    scores = json.loads(results.read_text())
    for score in scores["results"].values():
        ids = list(score["per_problem"])
        right = {ids[number] for number in problems}
        score["per_problem"] = {one: float(one in right) for one in ids}
        score["score"] = len(right) / len(ids)
        for line in lines:
            line["correct"] = line["id"] in right
    items.write_text("".join(json.dumps(line) + "\n" for line in lines))
    results.write_text(json.dumps(scores))


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
