"""Problems: the procedural task, GSM8K's upstream files, a user's own."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eapo_agents.errors import TaskError
from eapo_agents.grading import grade
from eapo_agents.tasks import load_problems
from eapo_agents.tasks.arithmetic import worked_steps


def test_the_splits_share_nothing_and_are_all_there_is():
    train, held_out, everything = (
        {p.id for p in load_problems("arithmetic", split=split)}
        for split in ("train", "heldout", "all")
    )
    assert not train & held_out
    assert train | held_out == everything
    assert len(everything) == 18 * 8 * 8
    assert len(held_out) >= 300


def test_the_order_is_the_seed_s_and_the_limit_takes_from_its_front():
    first = load_problems("arithmetic", split="train", seed=1)
    assert first == load_problems("arithmetic", split="train", seed=1)
    assert first[:5] == load_problems("arithmetic", split="train", seed=1, limit=5)
    assert first[:5] != load_problems("arithmetic", split="train", seed=2, limit=5)


def test_the_worked_steps_lead_to_the_gold_answer():
    for problem in load_problems("arithmetic", split="all"):
        steps, value = worked_steps(problem.metadata["expression"])
        assert value == problem.answer == str(eval(problem.metadata["expression"]))
        assert steps.endswith(f"= {value}.")
        assert grade(f"{steps} Answer: {value}", problem).correct


@pytest.mark.parametrize(
    ("expression", "steps", "value"),
    [
        ("7 + 3 * 4", "3 * 4 = 12. 7 + 12 = 19.", "19"),
        ("(7 - 9) / 4", "7 - 9 = -2. -2 / 4 = -1/2.", "-1/2"),
        ("-3 * 2", "-3 * 2 = -6.", "-6"),
        ("5", "5.", "5"),
    ],
)
def test_one_step_an_operation(expression, steps, value):
    assert worked_steps(expression) == (steps, value)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "What is 7?",
        "__import__('os').system('true')",
        "9**9**9",
        "1/0",
        "(" * 90,
        "9" * 99,
        "1e999",
        "True + 1",
        "\x00",
    ],
)
def test_what_is_no_arithmetic_is_refused(query):
    with pytest.raises(ValueError, match=r"\w"):
        worked_steps(query)


@given(st.text(max_size=120))
def test_any_query_gets_steps_or_a_value_error(query):
    try:
        steps, _ = worked_steps(query)
    except ValueError:
        return
    assert steps


def write(file: Path, *records: object) -> str:
    file.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n")
    return str(file)


GOOD = {"id": "1", "question": "Q?", "answer": "A", "grader": "exact", "topic": "t"}


def test_a_users_file_is_read_with_its_metadata(tmp_path):
    file = write(
        tmp_path / "mine.jsonl", GOOD, "", {**GOOD, "id": 2, "answer": 7, "grader": "number"}
    )
    first, second = sorted(load_problems(file, split="all"), key=lambda p: p.id)
    assert (first.id, first.metadata) == ("1", {"topic": "t"})
    assert (second.id, second.answer) == ("2", "7")


def numbered(file: Path, numbers, **more) -> str:
    return write(
        file,
        *({**GOOD, "id": f"p{n}", "question": f"What has number {n}?"} | more for n in numbers),
    )


def ids(file: str, split: str, **settings) -> set[str]:
    return {p.id for p in load_problems(file, split=split, **settings)}


def test_a_file_is_split_by_its_questions_alone(tmp_path):
    file = numbered(tmp_path / "mine.jsonl", range(200))
    train, held_out = ids(file, "train"), ids(file, "heldout")
    assert not train & held_out
    assert train | held_out == ids(file, "all")
    assert 10 <= len(held_out) <= 30
    assert ids(file, "heldout", held_out=0.5) > held_out
    # what else is in the file, and in which order, changes no problem's side
    fewer = numbered(tmp_path / "fewer.jsonl", range(99, -1, -1))
    assert ids(fewer, "heldout") == {i for i in held_out if int(i[1:]) < 100}


def test_a_line_may_say_its_split_and_a_second_file_may_be_what_is_held_out(tmp_path):
    said = write(
        tmp_path / "said.jsonl",
        {**GOOD, "split": "train"},
        {**GOOD, "id": "2", "question": "R?", "split": "test"},
    )
    assert (ids(said, "train"), ids(said, "heldout")) == ({"1"}, {"2"})
    more = numbered(tmp_path / "more.jsonl", range(3))
    assert ids(said, "heldout", held_out=more) == {"p0", "p1", "p2"}
    assert ids("arithmetic", "heldout", held_out=more) == {"p0", "p1", "p2"}


@pytest.mark.parametrize("spelling", ["Q?", "  q?\n"])
def test_a_problem_on_both_sides_is_refused_whatever_its_id_and_spelling(tmp_path, spelling):
    file = write(
        tmp_path / "both.jsonl",
        {**GOOD, "split": "train"},
        {**GOOD, "id": "2", "question": spelling, "split": "heldout"},
    )
    for split in ("train", "heldout"):
        with pytest.raises(TaskError, match=r"1 of the task .*task\.allow_overlap"):
            load_problems(file, split=split)
    assert ids(file, "heldout", allow_overlap=True) == {"2"}
    assert ids(file, "all") == {"1", "2"}


def test_a_split_without_problems_and_a_half_told_split_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"no problems in its split 'heldout'.*task\.held_out"):
        load_problems(numbered(tmp_path / "one.jsonl", [1], split="train"), split="heldout")
    half = write(tmp_path / "half.jsonl", GOOD, {**GOOD, "id": "2", "split": "train"})
    with pytest.raises(TaskError, match="1 of the 2"):
        load_problems(half, split="train")


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({**GOOD, "id": "2", "split": "later"}, "'split' must be one of"),
        ("{broken", "Line 2"),
        ("[]", "JSON object is needed"),
        ({**GOOD, "id": "2", "question": ""}, "'question' must be"),
        ({"id": "2", "question": "q", "grader": "exact"}, "'answer' must be"),
        ({**GOOD, "id": "2", "grader": "vibes"}, "Unknown grader 'vibes'"),
        (GOOD, "there twice"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, record, says):
    with pytest.raises(TaskError, match=says) as refusal:
        load_problems(write(tmp_path / "bad.jsonl", GOOD, record), split="all")
    assert "Line 2" in str(refusal.value)


def test_missing_empty_and_unknown_tasks_are_refused(tmp_path):
    with pytest.raises(TaskError, match="cannot be read"):
        load_problems(str(tmp_path / "missing.jsonl"), split="all")
    with pytest.raises(TaskError, match="is empty"):
        load_problems(write(tmp_path / "empty.jsonl"), split="all")
    with pytest.raises(TaskError, match="arithmetic, gsm8k"):
        load_problems("poetry", split="all")
    with pytest.raises(TaskError, match="Unknown split"):
        load_problems("arithmetic", split="dev")
    with pytest.raises(TaskError, match="9999 were asked for"):
        load_problems("arithmetic", split="train", limit=9999)


@pytest.mark.skipif("EAPO_DATA" not in os.environ, reason="EAPO_DATA names no folder with gsm8k/")
def test_gsm8k_s_upstream_files_are_read():
    held_out = load_problems("gsm8k", split="heldout")
    assert len(held_out) == 1319
    assert all(grade(f"Answer: {p.answer}", p).correct for p in held_out)
    assert len(load_problems("gsm8k", split="train")) >= 3000


def test_gsm8k_without_its_files_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("EAPO_DATA", str(tmp_path))
    with pytest.raises(TaskError, match="EAPO_DATA"):
        load_problems("gsm8k", split="train")
