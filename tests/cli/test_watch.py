"""`eapo watch` of what has stages: a demo, an evaluation, a collection. Real stores and files, in
the states in which a command leaves them."""

import json

import pytest

from eapo_agents.runs.lock import locked
from eapo_agents.runs.stages import read_stages
from eapo_agents.store import TraceStore
from eapo_agents.types import Sampling


@pytest.fixture
def stored(tmp_path, trajectory):
    """Puts rollouts into a folder's store: run id -> how many."""

    def put(folder, runs, kind="eval", recipe=None):
        folder.mkdir(parents=True, exist_ok=True)
        policy = trajectory(()).policy
        with TraceStore.open(folder / "traces.db", create=True) as store:
            for run_id, number in runs.items():
                store.start_run(
                    run_id, kind=kind, recipe=recipe or {}, sampling=Sampling(), policy=policy
                )
                for rollout in range(number):
                    one = trajectory((), rollout=rollout, correct=True, reward=1.0)
                    store.append(one, run_id=run_id, group_key="1/p0")

    return put


def test_a_demo_has_its_phases_and_ends_finished(tmp_path, stored, run_command):
    demo = tmp_path / "demo"
    stored(demo, {"base/solo": 3})
    (demo / "recipe.yaml").write_text("name: r\n")
    with locked(demo):
        states = [one.state for one in read_stages(str(demo)).stages]
        assert states == ["running"] + ["waiting"] * 6
        score = {"solo": {"score": 0.25, "ci95": [0.1, 0.4]}}
        phases = {"base": {"seconds": 12.0, "scores": score}}
        (demo / "phases.json").write_text(json.dumps(phases))
        found = read_stages(str(demo))
        assert found.is_running
        assert [one.state for one in found.stages[:3]] == ["finished", "running", "waiting"]
    status, printed, _ = run_command("watch", demo)  # nobody works in it: it does not wait
    assert status == 0
    assert "25.0% [10.0%, 40.0%]" in printed
    assert "3 answers" in printed
    assert "interrupted" in printed
    assert "the same command continues it" in printed
    names = ("base", "warm_start", "before", "collect", "train_logged", "train_live", "after")
    (demo / "phases.json").write_text(json.dumps({name: {"seconds": 1.0} for name in names}))
    (demo / "report.json").write_text("{}")
    assert {one.state for one in read_stages(str(demo)).stages} == {"finished"}


def test_a_collection_runs_while_a_process_holds_a_group(tmp_path, stored, run_command):
    recipe = {"collect": {"problems": 2, "num_generations": 2}}
    stored(tmp_path, {"c": 3}, "collect", recipe)
    at = tmp_path / "traces.db"
    with TraceStore.open(at) as store:
        assert store.claim("c", "1/p1")
        (one,) = read_stages(str(at)).stages
        assert (one.state, one.done, one.planned, one.score) == ("running", 3, 4, 1.0)
        store.release("c", "1/p1")
    status, printed, _ = run_command("watch", at)
    assert status == 0
    assert "not running" in printed  # the task may have no more problems
    assert "3 of 4 rollouts" in printed
    stored(tmp_path, {"c": 0, "d": 4}, "collect", recipe)
    states = {one.name: one.state for one in read_stages(str(tmp_path)).stages}
    assert states == {"c": "not running", "d": "finished"}


def test_a_training_of_which_no_step_has_ended_is_shown(tmp_path, run_command):
    run = tmp_path / "train"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: r\nseed: 4\n")
    with locked(run):
        status, printed, _ = run_command("watch", run, "--once")
        assert (status, "train, seed 4" in printed, "running" in printed) == (0, True, True)
    status, printed, _ = run_command("watch", run)
    assert "interrupted" in printed


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("nowhere", "holds no run"),
        ("notes.txt", "not a trace store"),
        ("empty.db", "no collection"),
    ],
)
def test_what_cannot_be_watched_is_said(name, rule, tmp_path, run_command):
    (tmp_path / "notes.txt").write_text("notes")
    TraceStore.open(tmp_path / "empty.db", create=True).close()
    status, _, error = run_command("watch", tmp_path / name)
    assert status == 2
    assert rule in error
