"""Collecting: killed in the middle, resumed, shared between processes."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eapo_agents.store import TraceStore
from graphs.collect import Collection, collect
from graphs.consult import build_consult_graph

NUM_TRAJECTORIES = 150 * 4
ROOT = Path(__file__).parent.parent.parent


class Collector:
    """A process that forks collecting processes on demand."""

    def __init__(self, model: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "collector.py"), str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.line() == "ready"

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def start(self, store: Path) -> int:
        self.process.stdin.write(f"{store}\n")
        self.process.stdin.flush()
        return int(self.line())


@pytest.fixture
def make_collector(saved_model):
    made = []

    def make() -> Collector:
        made.append(Collector(saved_model))
        return made[-1]

    yield make
    for collector in made:
        collector.process.kill()
        collector.process.wait()


def count(file: Path) -> int:
    """Trajectories committed so far, read without a lock."""
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        return int(connection.execute("SELECT count(*) FROM trajectories").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # its tables are not there yet
    finally:
        connection.close()


def wait_for_more_than(number: int, file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists() or count(file) <= number:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def whole(store: TraceStore) -> dict[int, object]:
    """All trajectories by number; each must have both of its turns and its consultation."""
    found = {stored.id: stored.trajectory for stored in store.trajectories("run")}
    for trajectory in found.values():
        first, second = trajectory.turns
        assert len(first.consultations) == 1
        assert second.parent == 0
        assert trajectory.stop_reason == "answered"
    return found


@pytest.mark.long
def test_twenty_kills_lose_nothing_leave_nothing_half_and_repeat_nothing(make_collector, tmp_path):
    file, rng = tmp_path / "traces.db", random.Random(0)
    collector = make_collector()
    before: dict[int, object] = {}
    grew = 0
    for kill in range(20):
        child = collector.start(file)
        if kill % 2:  # once it has committed something
            wait_for_more_than(len(before), file)
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        assert collector.line() == "gone"
        with TraceStore.open(
            file, create=True
        ) as store:  # the blow may have come before the tables
            now = whole(store)
        assert before.items() <= now.items()
        grew += len(now) > len(before)
        before = now
    assert 0 < len(before) < NUM_TRAJECTORIES, "the kills must fall in the middle"
    assert grew >= 10
    collector.start(file)
    assert collector.line() == f"ran {NUM_TRAJECTORIES - len(before)}"
    assert collector.line() == "gone"
    with TraceStore.open(file) as store:
        now = whole(store)
        assert before.items() <= now.items()
        assert len(now) == NUM_TRAJECTORIES
        assert all(len(found) == 4 for found in store.have("run").values())


@pytest.mark.long
def test_two_processes_share_the_work_of_one_store(make_collector, tmp_path):
    collectors = [make_collector(), make_collector()]
    for collector in collectors:
        collector.start(tmp_path / "traces.db")
    ran = [int(collector.line().removeprefix("ran ")) for collector in collectors]
    assert sum(ran) == NUM_TRAJECTORIES
    assert min(ran) > 0
    with TraceStore.open(tmp_path / "traces.db") as store:
        assert len(whole(store)) == NUM_TRAJECTORIES


def test_collecting_again_runs_nothing_and_more_rollouts_only_what_is_new(agent, tmp_path, problem):
    policy = agent.policy(agent.sampling)
    graph = agent.graph(policy)

    def wanted(num_rollouts: int) -> Collection:
        return Collection(
            run_id="run",
            problems=[problem],
            num_rollouts=num_rollouts,
            concurrency=8,
            seed=0,
            system_prompt="Solve.",
        )

    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run(
            "run",
            kind="collect",
            recipe={},
            sampling=agent.sampling,
            policy=agent.engine.policy_version,
        )
        assert collect(graph, policy, store, wanted(2)) == 2
        assert collect(graph, policy, store, wanted(2)) == 0
        assert collect(graph, policy, store, wanted(3)) == 1
        assert [t.rollout for t in next(store.groups("run")).trajectories_G] == [0, 1, 2]


def test_a_rollout_that_raises_is_stored_as_the_error_that_it_is(scripted, tmp_path, problem):
    from eapo_agents.experts.pool import ExpertPool
    from eapo_agents.schedules import AcceptanceSchedule, TurnBudget

    def script(key, prompt):
        raise RuntimeError("no luck")

    policy = scripted(script)
    graph = build_consult_graph(
        policy, ExpertPool(), acceptance=AcceptanceSchedule(), turns=TurnBudget()
    )
    wanted = Collection(
        run_id="run",
        problems=[problem],
        num_rollouts=2,
        concurrency=8,
        seed=0,
        system_prompt="",
    )
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run(
            "run",
            kind="collect",
            recipe={},
            sampling=policy.sampling,
            policy=policy.engine.policy_version,
        )
        collect(graph, policy, store, wanted)
        for stored in store.trajectories():
            assert "no luck" in stored.trajectory.error
            assert stored.trajectory.reward is None
