"""A collection by tasks of a real Ray cluster of two workers, into a real PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from eapo_agents.store import TraceStore

RECIPE = """
name: by-ray
policy: {model: MODEL}
sampling: {max_new_tokens: 4}
rollouts: {concurrency: 2}
collect: {problems: 12, num_generations: 2}
"""
TASK = "ray::eapo collect"
"""What Ray calls a process that runs a task."""


@pytest.fixture(scope="module")
def cluster():
    """Address of a head without CPUs and two workers with one each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        running.add_node(num_cpus=1)
    yield running.address
    running.shutdown()


@pytest.fixture
def recipe(saved_model, tmp_path):
    file = tmp_path / "ray.yaml"
    file.write_text(RECIPE.replace("MODEL", str(saved_model)))
    return file


def start(recipe, store: str, run_id: str, *options: str, address: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "eapo_agents.cli.main", "collect", "--json", *options]
    command += ["--recipe", str(recipe), "--store", store, "--run-id", run_id]
    return subprocess.Popen(
        command, cwd=recipe.parent, env={**os.environ, "RAY_ADDRESS": address},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def all_there_once(database: str, run_id: str, count: int = 24) -> bool:
    with TraceStore.open(database) as store:
        found = [stored.trajectory for stored in store.trajectories(run_id)]
    assert [t.error for t in found] == [None] * len(found)
    return len(found) == count == len({(t.problem.id, t.rollout) for t in found})


def test_two_workers_collect_all_once(cluster, database, recipe):
    running = start(recipe, database, "ray", "--ray", "2", address=cluster)
    told, errors = running.communicate(timeout=900)
    assert running.returncode == 0, errors
    facts = json.loads(told)
    assert (facts["run_now"], facts["rollouts"], facts["nodes"]) == (24, 24, 2)
    assert all_there_once(database, "ray")


def test_a_worker_that_is_killed_is_replaced(cluster, database, recipe):
    # so many that tasks are still at work when the first rollouts are seen
    many = ("--ray", "2", "--set", "collect.problems=48")
    running = start(recipe, database, "killed", *many, address=cluster)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with TraceStore.open(database) as store:
            if store.have("killed"):
                break
        time.sleep(0.1)
    at_work = [p for p in psutil.process_iter(["name", "cmdline"]) if is_task(p)]
    assert at_work, "no task is running"
    os.kill(at_work[0].pid, signal.SIGKILL)
    told, errors = running.communicate(timeout=900)
    assert running.returncode == 0, errors
    assert json.loads(told)["rollouts"] == 96
    assert all_there_once(database, "killed", 96)


def is_task(process: psutil.Process) -> bool:
    return TASK in " ".join(process.info["cmdline"] or [])


def test_what_ray_cannot_do_is_one_sentence(cluster, database, recipe, tmp_path):
    refused = {
        "give --store a PostgreSQL": start(
            recipe, str(tmp_path / "t.db"), "r", "--ray", "2", address=cluster
        ),
        "drop --shard or --ray": start(
            recipe, database, "r", "--ray", "2", "--shard", "1/2", address=cluster
        ),
        "No Ray cluster can be used": start(
            recipe, database, "r", "--ray", "2", address="127.0.0.1:1"
        ),
    }
    for sentence, running in refused.items():
        _, errors = running.communicate(timeout=900)
        assert running.returncode == 2, errors
        assert sentence in errors.splitlines()[-1], errors
