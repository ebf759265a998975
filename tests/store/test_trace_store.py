"""The store on real SQLite files: what goes in comes out, whole, once, or is refused and left
alone."""

import dataclasses
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eapo_agents.errors import StoreError
from eapo_agents.store import TraceStore
from eapo_agents.types import (
    FORMAT_VERSION,
    Consultation,
    ConsultationStatus,
    PolicyVersion,
    Sampling,
    Turn,
)

POLICY = PolicyVersion(model="m", base="b", weights="w", step=3)


def float32(value: float) -> float:
    return float(np.float32(value))


def turn(context, completion, parent=None, logprobs=True, consultations=()) -> Turn:
    return Turn(
        context_ids=tuple(context),
        completion_ids=tuple(completion),
        logprobs=tuple(float32(-0.1 * (i + 1)) for i in range(len(completion)))
        if logprobs
        else None,
        parent=parent,
        text="some text",
        finish_reason="stop",
        consultations=tuple(consultations),
    )


def asked(slot: int, status: ConsultationStatus, **changes) -> Consultation:
    facts = {"expert": "solver", "query": "1+1", "reply": "2", "rho": 0.5, "u": 0.25}
    return Consultation(slot=slot, status=status, **{**facts, **changes})


NEWER = PolicyVersion(model="m", base="b", weights="newer", step=4)
TURNS = (
    turn(
        [1, 2, 49_151],
        [4, 5],
        consultations=[
            asked(0, ConsultationStatus.ACCEPTED, latency_s=0.5, tokens=7, cost_usd=0.01),
            asked(1, ConsultationStatus.FAILED, error="boom"),
        ],
    ),
    turn([6], [7, 8, 9], parent=0),
    # sampled with newer weights than the trajectory began with
    dataclasses.replace(turn([], [], logprobs=False), policy=NEWER),
)


@pytest.fixture
def store(tmp_path):
    with TraceStore.open(tmp_path / "traces.db", create=True) as opened:
        start(opened)
        yield opened


def start(store, run_id="run", **changes):
    facts = {"kind": "collect", "recipe": {"seed": 0}, "sampling": Sampling(), "policy": POLICY}
    store.start_run(run_id, **{**facts, **changes})


def test_a_trajectory_comes_back_as_it_went_in(store, trajectory):
    whole = trajectory(TURNS, reward=None, correct=None, error="failed", duration_s=1.5)
    assert store.append(whole, run_id="run", group_key="1/p0")
    (stored,) = store.trajectories()
    assert stored.trajectory == whole
    assert (stored.run_id, stored.group_key) == ("run", "1/p0")
    assert store.trajectory(stored.id) == stored


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    ids=st.lists(st.integers(0, 2**31 - 1), max_size=50),
    text=st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])),
)
def test_any_tokens_and_any_text_survive(tmp_path_factory, trajectory, ids, text):
    whole = trajectory((dataclasses.replace(turn(ids, ids), text=text),), answer=text)
    with TraceStore.open(tmp_path_factory.mktemp("s") / "t.db", create=True) as store:
        start(store)
        store.append(whole, run_id="run", group_key="g")
        assert next(store.trajectories()).trajectory == whole


def test_text_that_no_database_takes_is_stored_with_marks_in_its_place(store, trajectory):
    store.append(
        trajectory((dataclasses.replace(TURNS[0], text="a\ud800b\x00c"),)),
        run_id="run",
        group_key="g",
    )
    assert next(store.trajectories()).trajectory.turns[0].text == "a?b\ufffdc"


def test_the_same_rollout_is_stored_once(store, trajectory):
    assert store.append(trajectory(TURNS), run_id="run", group_key="g")
    assert not store.append(trajectory(()), run_id="run", group_key="g")
    assert store.append(trajectory(TURNS, rollout=1), run_id="run", group_key="g")
    assert [len(s.trajectory.turns) for s in store.trajectories()] == [3, 3]
    assert store.have("run") == {"g": {0, 1}}
    assert store.have("another") == {}


def test_the_latest_trajectories_come_without_reading_the_others(store, trajectory):
    for rollout in range(5):
        store.append(trajectory(TURNS, rollout=rollout), run_id="run", group_key="g")
    for latest, expected in ((2, [3, 4]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])):
        found = store.trajectories("run", latest=latest)
        assert [s.trajectory.rollout for s in found] == expected


def test_groups_come_in_the_order_in_which_they_began(store, trajectory):
    for key, rollout in (("b", 1), ("a", 0), ("b", 0), ("a", 1)):
        store.append(trajectory(TURNS, rollout=rollout), run_id="run", group_key=key)
    groups = list(store.groups("run"))
    assert [[t.rollout for t in g.trajectories_G] for g in groups] == [[0, 1], [0, 1]]
    assert store.have("run") == {"b": {0, 1}, "a": {0, 1}}


def test_a_run_tells_what_it_was_made_with(store, trajectory):
    store.append(trajectory(TURNS), run_id="run", group_key="g")
    (run,) = store.runs()
    assert (run.kind, run.recipe, run.sampling, run.policy) == (
        "collect",
        {"seed": 0},
        Sampling(),
        POLICY,
    )
    assert run.num_trajectories == 1


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"sampling": Sampling(temperature=0.5)}, "sampling"),
        ({"policy": dataclasses.replace(POLICY, weights="other")}, "weights"),
        ({"recipe": {"seed": 1}}, "seed"),
        ({"kind": "eval"}, "kind"),
    ],
)
def test_a_run_does_not_go_on_under_other_settings(store, changes, what):
    with pytest.raises(StoreError, match=what):
        start(store, **changes)
    start(store)  # under its own it does


def test_a_store_opens_again_and_holds_what_it_held(tmp_path, trajectory):
    file = tmp_path / "traces.db"
    with TraceStore.open(file, create=True) as store:
        start(store)
        store.append(trajectory(TURNS), run_id="run", group_key="g")
    assert [p.name for p in tmp_path.iterdir()] == ["traces.db"]  # no journal is left behind
    with TraceStore.open(f"sqlite:///{file}") as store:
        assert next(store.trajectories()).trajectory == trajectory(TURNS)


def broken_files(folder):
    (folder / "text").write_text("this is no database, whatever it is called")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    sqlite3.connect(folder / "foreign").execute("CREATE TABLE songs (name)").connection.close()
    with TraceStore.open(folder / "newer", create=True):
        pass
    with sqlite3.connect(folder / "newer") as connection:
        connection.execute(
            "UPDATE eapo_meta SET value = ? WHERE key = 'format'", (str(FORMAT_VERSION + 1),)
        )
    connection.close()
    (folder / "cut").write_bytes((folder / "newer").read_bytes()[:5000])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "There is no store"),
        ("text", "not an SQLite file"),
        ("empty", "is empty and not a trace store yet"),
        ("folder", "is a folder"),
        ("foreign", "database of something else"),
        ("newer", f"has format {FORMAT_VERSION + 1}"),
        ("cut", "cannot be used"),
    ],
)
def test_what_is_no_store_is_refused_in_one_sentence_and_left_as_it_was(tmp_path, name, says):
    broken_files(tmp_path)
    before = {p.name: p.is_file() and p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=says) as refusal:
        TraceStore.open(tmp_path / name)
    assert "\n" not in str(refusal.value)
    assert {p.name: p.is_file() and p.read_bytes() for p in tmp_path.iterdir()} == before


def test_even_with_create_nothing_that_is_no_store_is_touched(tmp_path):
    broken_files(tmp_path)
    for name in ("text", "folder", "foreign", "newer"):
        with pytest.raises(StoreError):
            TraceStore.open(tmp_path / name, create=True)
    TraceStore.open(tmp_path / "empty", create=True).close()  # an empty file holds nothing to lose


@pytest.mark.parametrize("url", ["nonsense://x", "mysql+nothing://u:secret@h/d", "://"])
def test_an_unusable_url_is_refused_without_its_password(url):
    with pytest.raises(StoreError) as refusal:
        TraceStore.open(url)
    assert "secret" not in str(refusal.value)


def test_a_store_that_cannot_be_written_says_so(tmp_path):
    with pytest.raises(StoreError, match="cannot"):
        TraceStore.open("/proc/eapo/traces.db", create=True)


CLAIMER = """
import sys
from eapo_agents.store import TraceStore
with TraceStore.open(sys.argv[1]) as store:
    print([store.claim("run", key) for key in ("a", "b")], flush=True)
    sys.stdin.readline()
"""


def test_a_group_is_claimed_by_one_process_and_freed_by_its_death(store, tmp_path):
    assert store.claim("run", "a")
    assert store.claim("run", "a")  # one's own
    command = [sys.executable, "-c", CLAIMER, str(tmp_path / "traces.db")]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "[False, True]"
    assert not store.claim("run", "b")
    other.kill()
    other.wait()
    assert store.claim("run", "b")
    store.release("run", "a")
    store.release("run", "b")


APPENDER = """
import sys
sys.path.insert(0, sys.argv[3])
from conftest import make_trajectory
from eapo_agents.store import TraceStore
from eapo_agents.types import Sampling, PolicyVersion
with TraceStore.open(sys.argv[1], create=True) as store:
    policy = PolicyVersion(model="m", base="b", weights="w", step=3)
    store.start_run("run", kind="collect", recipe={}, sampling=Sampling(), policy=policy)
    for rollout in range(200):
        store.append(make_trajectory((), rollout=rollout), run_id="run", group_key=sys.argv[2])
"""


def test_processes_that_make_one_store_and_write_to_it_at_once_lose_nothing(tmp_path):
    file, tests = str(tmp_path / "new.db"), os.path.dirname(os.path.dirname(__file__))
    running = [
        subprocess.Popen([sys.executable, "-c", APPENDER, file, key, tests]) for key in "abc"
    ]
    assert [process.wait() for process in running] == [0, 0, 0]
    with TraceStore.open(file) as store:
        assert {key: len(found) for key, found in store.have("run").items()} == dict.fromkeys(
            "abc", 200
        )


def test_parts_of_rewards_are_kept_and_a_store_without_them_is_read_as_before(tmp_path, trajectory):
    at = {"run_id": "r", "group_key": "g"}
    policy = PolicyVersion(model="m", base="b", weights="w", step=0)
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run("r", kind="collect", recipe={}, sampling=Sampling(), policy=policy)
        store.append(trajectory((), rollout=0, reward=1.0), **at)
        with sqlite3.connect(tmp_path / "t.db") as seen:
            tables = {row[0] for row in seen.execute("SELECT name FROM sqlite_master")}
        assert "reward_parts" not in tables  # as in a store of before
        assert [one.trajectory.reward_parts for one in store.trajectories()] == [{}]
        parts = {"right": 1.0, "a/brief": -0.5}
        store.append(trajectory((), rollout=1, reward=0.5, reward_parts=parts), **at)
        failed = trajectory((), rollout=2, error="x", reward=None, reward_parts=parts)
        store.append(failed, **at)
        store.append(trajectory((), rollout=2, reward=0.0), replaces_failed=True, **at)
        found = [one.trajectory.reward_parts for one in store.trajectories()]
    assert found == [{}, parts, {}]
    assert list(found[1]) == ["right", "a/brief"]
