"""Collecting from servers that die."""

from __future__ import annotations

import re
import subprocess
import sys
import time

from eapo_agents.errors import StoreError
from eapo_agents.store import TraceStore

ROLLOUTS = 40


def collecting(recipe_file, store, *urls):
    command = [sys.executable, "-m", "eapo_agents.cli.main", "collect", "--json"]
    command += ["--recipe", str(recipe_file), "--store", str(store), "--run-id", "c"]
    command += ["--set", f"policy.servers=[{','.join(urls)}]", "--set", "policy.server_wait_s=900"]
    command += ["--set", f"collect.problems={ROLLOUTS // 4}"]
    command += ["--set", "sampling.max_new_tokens=40"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_trajectories(store, count):
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        try:
            with TraceStore.open(store) as opened:
                if sum(map(len, opened.have("c").values())) >= count:
                    return
        except StoreError as error:
            # It is not there, or has been made this moment and has no tables.
            if not re.search("There is no store|not a trace store yet", str(error)):
                raise
        time.sleep(0.2)
    raise AssertionError("nothing was collected")


def assert_all_there_once(store):
    with TraceStore.open(store) as opened:
        found = [stored.trajectory for stored in opened.trajectories("c")]
    assert len(found) == ROLLOUTS
    assert len({(t.problem.id, t.rollout) for t in found}) == ROLLOUTS
    assert [t.error for t in found] == [None] * ROLLOUTS


def test_servers_that_die_cost_nothing(serve, recipe_file, tmp_path):
    """One of two is killed, and the other does the work; that too, and its successor does."""
    first, second = serve.two("--recipe", str(recipe_file), "--dtype", "float32")
    store = tmp_path / "traces.db"
    process = collecting(recipe_file, store, first.url, second.url)
    wait_for_trajectories(store, 4)
    logs = [server.log.read_text().count("POST /v1/completions") for server in (first, second)]
    assert min(logs) > 0, "both were given work"
    first.kill()
    wait_for_trajectories(store, ROLLOUTS // 2)
    second.kill()
    time.sleep(2)
    assert process.poll() is None, "it waits"
    second.start()
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    assert_all_there_once(store)
