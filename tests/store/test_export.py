"""Exports that other programs read."""

import dataclasses
import json

import pytest

from eapo_agents.errors import StoreError, UsageError
from eapo_agents.store import TraceStore
from eapo_agents.store.export import as_record, export
from eapo_agents.types import Consultation, ConsultationStatus, PolicyVersion, Sampling, Turn


@pytest.fixture
def store(tmp_path, trajectory):
    consultation = Consultation(
        slot=0, expert="e", query="q", reply="r", status=ConsultationStatus.ACCEPTED, rho=1.0, u=0.5
    )
    turns = (
        Turn(
            context_ids=(1, 2),
            completion_ids=(3,),
            logprobs=(-0.5,),
            parent=None,
            text="t",
            finish_reason="stop",
            consultations=(consultation,),
        ),
    )
    with TraceStore.open(tmp_path / "t.db", create=True) as opened:
        changed = dataclasses.replace(
            turns[0],
            consultations=(),
            policy=PolicyVersion(model="m", base="b", weights="newer", step=4),
        )
        opened.start_run(
            "run",
            kind="collect",
            recipe={},
            sampling=Sampling(),
            policy=PolicyVersion(model="m", base="b", weights="w", step=0),
        )
        # the first rows have nothing where later ones have something
        for rollout, made in enumerate([(), turns, (*turns, changed)]):
            reward = 1.0 if made else None
            parts = {"right": 1.0, "brief": 0.25} if rollout == 2 else {}
            opened.append(
                trajectory(made, rollout=rollout, reward=reward, reward_parts=parts),
                run_id="run",
                group_key="g",
            )
        yield opened


def test_datasets_loads_the_parquet_export(store, tmp_path):
    from datasets import load_dataset

    assert export(store.trajectories(), tmp_path / "out.parquet") == 3
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / "out.parquet"), cache_dir=str(tmp_path), split="train"
    )
    assert rows.num_rows == 3
    expected = [json.loads(json.dumps(as_record(s))) for s in store.trajectories()]
    assert list(rows) == expected


def test_the_jsonl_export_has_one_object_a_line(store, tmp_path):
    assert export(store.trajectories(), tmp_path / "new" / "out.jsonl") == 3
    lines = (tmp_path / "new" / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["reward"] for line in lines] == [None, 1.0, 1.0]
    assert json.loads(lines[1])["turns"][0]["consultations"][0]["status"] == "accepted"
    parts = [json.loads(line)["reward_parts"] for line in lines]
    assert parts[:2] == [[], []]
    assert parts[2] == [{"name": "right", "value": 1.0}, {"name": "brief", "value": 0.25}]


def test_an_export_that_fails_leaves_the_old_file_and_no_other(store, tmp_path):
    file = tmp_path / "out.jsonl"
    file.write_text("old")

    def failing():
        yield from store.trajectories()
        raise OSError("disk full")

    with pytest.raises(StoreError, match="disk full"):
        export(failing(), file)
    assert file.read_text() == "old"
    assert sorted(p.name for p in tmp_path.glob("*out*")) == ["out.jsonl"]


def test_another_ending_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match=r"\.parquet or a \.jsonl"):
        export(store.trajectories(), tmp_path / "out.csv")
