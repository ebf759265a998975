"""A store of format 1, written by the code of its time, becomes one of today, or is refused."""

import sqlite3
from pathlib import Path

import pytest

from eapo_agents.errors import StoreError, UsageError
from eapo_agents.store import TraceStore
from eapo_agents.store.convert import convert
from eapo_agents.types import PolicyVersion, Role, Sampling
from trainers.doctor import examine

DUMP = Path(__file__).parent / "format1.sql"
"""Written by commit 0cd7080: a group of the consult graph (one rollout solo, one failed, one under
another graph's name and with new weights in its middle), an expert's solution, a conversation."""


@pytest.fixture
def old(tmp_path) -> Path:
    file = tmp_path / "old.db"
    with sqlite3.connect(file) as connection:
        connection.executescript(DUMP.read_text())
    connection.close()
    return file


def test_an_old_store_is_refused_by_a_sentence_that_names_the_command_that_converts_it(old):
    before = old.read_bytes()
    with pytest.raises(StoreError, match=f"format 1.*`eapo traces convert {old} NEW`"):
        TraceStore.open(old)
    assert old.read_bytes() == before
    assert [p.name for p in old.parent.iterdir()] == ["old.db"]


def test_a_converted_store_holds_what_the_old_one_held_with_roles(old, tmp_path):
    before = old.read_bytes()
    assert convert(old, tmp_path / "new.db") == 6
    assert old.read_bytes() == before
    with TraceStore.open(tmp_path / "new.db") as store:
        train, chat = store.runs()
        assert (train.run_id, train.kind, train.num_trajectories) == ("train", "train", 5)
        assert (chat.sampling, chat.recipe["seed"]) == (Sampling(max_new_tokens=64), 0)
        found = list(store.trajectories())
        assert [(s.group_key, s.trajectory.graph, s.trajectory.role) for s in found] == [
            ("1/p0", "solo", Role.SOLO),
            ("1/p0", "consult", Role.CONSULT),
            ("1/p0", "consult", Role.CONSULT),
            ("1/p0", "LangGraph", Role.OWN),
            ("2/p0", "expert", Role.EXPERT),
            ("chat/1", "chat", Role.CONSULT),
        ]
        assert found[2].trajectory.error == "RuntimeError: the script has no more"
        first, second = found[3].trajectory.turns
        assert (first.id, first.parent, second.id, second.parent) == ("0", None, "1", 0)
        assert second.completion_ids == (21350, 42, 216, 37, 2)
        assert second.logprobs == (-0.5,) * 5
        assert second.policy == PolicyVersion(
            model="scripted", base="scripted", weights="newer", step=1
        )
        (asked,) = first.consultations
        assert (asked.expert, asked.query, asked.reply) == ("solver", "2 + 3", "5")
        assert store.append(found[0].trajectory, run_id="chat-1", group_key="new")
        assert examine(list(store.groups("train"))).num_trajectories == 5


def test_what_needs_no_conversion_and_what_exists_is_refused(old, tmp_path):
    new = tmp_path / "new.db"
    convert(old, new)
    with pytest.raises(UsageError, match="has format 2"):
        convert(new, tmp_path / "newer.db")
    with pytest.raises(UsageError, match="exists already"):
        convert(old, new)
    with pytest.raises(StoreError, match="There is no store"):
        convert(tmp_path / "missing.db", tmp_path / "newer.db")
    assert not (tmp_path / "newer.db").exists()


def test_a_conversion_that_fails_leaves_no_half_store(old, tmp_path):
    with sqlite3.connect(old) as connection:
        connection.execute("ALTER TABLE turns DROP COLUMN text")
    connection.close()
    with pytest.raises(StoreError):
        convert(old, tmp_path / "new.db")
    assert [p.name for p in tmp_path.iterdir()] == ["old.db"]
