"""Exports that other programs read."""

import dataclasses
import json

import pytest

from eapo_agents.errors import StoreError, TraceError, UsageError
from eapo_agents.store import TraceStore
from eapo_agents.store.export import as_record, export, export_rows
from eapo_agents.store.foreign_traces import import_rows
from eapo_agents.store.platforms import platform_rows
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


def read_lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_langsmith_s_own_types_read_the_runs_and_they_are_a_tree(store, tmp_path):
    from langsmith.schemas import Run

    file = tmp_path / "runs.jsonl"
    export_rows(platform_rows("langsmith", store.trajectories(), {"run": "Be exact."}), file)
    runs = [Run.model_validate({**row, "session_name": None}) for row in read_lines(file)]
    by_id = {run.id: run for run in runs}
    assert len(by_id) == len(runs) == 3 + 1 + 2 + 2  # traces, turns, consultations
    kinds = {"chain": None, "llm": "chain", "tool": "llm"}
    for run in runs:
        parent = by_id.get(run.parent_run_id)
        assert (parent.run_type if parent else None) == kinds[run.run_type]
        if parent is not None:
            assert run.dotted_order.startswith(f"{parent.dotted_order}.")
            assert parent.start_time <= run.start_time <= run.end_time <= parent.end_time
    roots = [run for run in runs if run.run_type == "chain"]
    assert [run.feedback_stats for run in roots] == [{}, *[{"reward": {"n": 1, "avg": 1.0}}] * 2]
    facts = roots[1].extra["metadata"]
    assert (facts["run_id"], facts["rollout"], facts["reward"]) == ("run", 1, 1.0)
    asked = roots[1].inputs["messages"]
    assert [message["role"] for message in asked] == ["system", "user"]
    tool = next(run for run in runs if run.run_type == "tool")
    assert (tool.inputs, tool.outputs) == ({"query": "q"}, {"output": "r"})
    assert tool.extra["metadata"]["status"] == "accepted"


@pytest.mark.parametrize("platform", ["langsmith", "langfuse"])
def test_exported_traces_are_imported_as_what_was_asked_and_answered(store, tmp_path, platform):
    file = tmp_path / "traces.jsonl"
    prompts = {"run": "Be exact."}
    export_rows(platform_rows(platform, store.trajectories(), prompts), file)
    found = import_rows(file, score="reward", min_score=0.5)
    assert (found.num_traces, found.num_unscored, found.num_low) == (3, 1, 0)
    scored = [s.trajectory for s in store.trajectories() if s.trajectory.reward is not None]
    assert found.rows == [
        {
            "prompt": [
                {"role": "system", "content": "Be exact."},
                {"role": "user", "content": one.problem.question},
            ],
            "completion": [{"role": "assistant", "content": one.answer}],
        }
        for one in scored
    ]
    assert import_rows(file, score="reward", min_score=1.5).num_low == 2
    assert import_rows(file, score="another", min_score=0.5).num_unscored == 3


def test_traces_as_langchain_and_others_write_them_are_read(tmp_path):
    def of_langchain(name, text):
        return {"lc": 1, "id": ["langchain", "schema", name], "kwargs": {"content": text}}

    records = [
        {
            "id": "a",
            "run_type": "chain",
            "inputs": {"messages": [[of_langchain("HumanMessage", "Q1")]]},
            "outputs": {"generations": [[{"message": of_langchain("AIMessage", "A1")}]]},
        },
        {"id": "b", "run_type": "llm", "parent_run_id": "a", "inputs": {}, "outputs": {}},
        {"id": "c", "run_type": "chain", "inputs": {"question": "Q2"}, "error": "boom"},
        {"id": "d", "input": "Q3", "output": "A3", "scores": [{"name": "good", "value": 1}]},
        {
            "id": "e",
            "input": [{"role": "user", "content": [{"type": "text", "text": "Q4"}]}],
            "output": {"choices": [{"message": {"role": "assistant", "content": "A4"}}]},
        },
    ]
    file = tmp_path / "traces.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    found = import_rows(file, score="good", min_score=None)
    pairs = [(r["prompt"][0]["content"], r["completion"][0]["content"]) for r in found.rows]
    assert pairs == [("Q1", "A1"), ("Q3", "A3"), ("Q4", "A4")]
    assert (found.num_traces, found.num_without_text) == (4, 1)
    assert len(import_rows(file, score="good", min_score=1.0).rows) == 1
    for text, why in (
        ("{", "is not JSONL"),
        ('{"a": 1}', "Line 1 .* is neither"),
        ("", "no whole"),
    ):
        file.write_text(text)
        with pytest.raises(TraceError, match=why):
            import_rows(file, score="good", min_score=None)
