"""HLE's judged files, and a judge beside the grades that a file has."""

import json
import math
import random

import pytest

JUDGE = """
name: judged
consult:
  experts:
    judge: {{kind: scripted, stored: true, options: {{default: "Letter: {letter}"}},
            price: {{input_usd: 1, output_usd: 2}}}}
  expert_store: {folder}/experts.db
"""
SIMPLE = "metadata,problem,answer\n" + "".join(f"{{}},Question {i}?,Gold {i}\n" for i in range(5))


def judged(number, dice):
    """An entry of upstream's judged file."""
    return {
        "model": "m",
        "response": f"Answer: {number}",
        "judge_response": {
            "correct_answer": "x",
            "model_answer": str(number),
            "reasoning": "r",
            "correct": "yes" if dice.random() < 0.3 else "no",
            # all differ: how NumPy orders equal ones is its own affair
            "confidence": (number * 37 % 251) * 100 / 251,
        },
    }


def test_hle_has_its_script_s_accuracy_half_width_and_calibration_error(score, tmp_path):
    dice = random.Random(0)
    file = {f"q{number}": judged(number, dice) for number in range(250)}
    gold = [
        {"id": f"q{number}", "question": f"Q{number}?", "answer": "x", "answer_type": "exactMatch"}
        for number in range(260)  # ten have no answer, and count
    ]
    (tmp_path / "gold.jsonl").write_text("".join(json.dumps(one) + "\n" for one in gold))
    (tmp_path / "judged.json").write_text(json.dumps(file))
    status, found = score("hle", tmp_path / "gold.jsonl", tmp_path / "judged.json")
    assert status == 0, found
    said = [one["judge_response"] for one in file.values()]
    percent = round(100 * sum(one["correct"] == "yes" for one in said) / 260, 2)
    assert found["metrics"]["accuracy_percent"] == percent
    half = round(1.96 * math.sqrt(percent * (100 - percent) / 260), 2)
    assert found["metrics"]["half_width_percent"] == half
    # two bins of 100, the second with the rest: the script leaves the last one out
    first = sorted(said, key=lambda one: one["confidence"])[:100]
    stated = sum(one["confidence"] / 100 for one in first) / 100
    right = sum(one["correct"] == "yes" for one in first) / 100
    error = math.sqrt(100 / 250 * (stated - right) ** 2)
    assert found["metrics"]["calibration_error"] == pytest.approx(error)


@pytest.mark.parametrize(("letter", "equal"), [("A", 3), ("B", 1)])
def test_a_judge_beside_a_file_s_grades_is_compared_with_them(score, tmp_path, letter, equal):
    (tmp_path / "gold.csv").write_text(SIMPLE)
    (tmp_path / "r.yaml").write_text(JUDGE.format(letter=letter, folder=tmp_path))
    grades = ["A", "A", "A", "B", None]
    records = [{"id": i, "completion": f"It is {i}."} for i in range(5)]
    for record, grade in zip(records, grades, strict=True):
        record |= {"grade": grade} if grade else {}
    predictions = tmp_path / "p.jsonl"
    predictions.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = ("--judge", "judge", "--recipe", tmp_path / "r.yaml")
    status, found = score("simpleqa", tmp_path / "gold.csv", predictions, *options)
    assert status == 0, found
    assert found["judge"]["costs"][0]["calls"] == 1, "what has a grade is not asked"
    assert found["metrics"]["correct"] == (0.8 if letter == "A" else 0.6)
    status, found = score("simpleqa", tmp_path / "gold.csv", predictions, *options, "--judge-again")
    assert status == 0, found
    assert (found["agreement"]["answers"], found["agreement"]["equal"]) == (4, equal)
