"""Two hundred ways and more in which models write an answer, for each grader; all made by hand."""

from pathlib import Path

import pytest

from eapo_agents.grading import grade
from eapo_agents.types import Problem

TABLES = Path(__file__).parent / "tables"
CHOICES = ["Paris", "London", "Rome", "Berlin"]


def rows(name):
    lines = (TABLES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split(" | ")) for line in lines if line and not line.startswith("#")]


def written(text):
    """`\\n`, `\\r` and `\\u1234` as what they stand for; other backslashes are LaTeX's."""
    text = text.replace("\\r", "\r") if text.endswith("\\n") else text
    out, rest = "", text
    while rest:
        if rest.startswith("\\u") and len(rest) >= 6 and _is_hex(rest[2:6]):
            out, rest = out + chr(int(rest[2:6], 16)), rest[6:]
        elif rest.startswith("\\n") and not rest.startswith(("\\neq", "\\ne ", "\\nabla", "\\nu")):
            out, rest = out + "\n", rest[2:]
        else:
            out, rest = out + rest[0], rest[1:]
    return out


def _is_hex(text):
    return all(c in "0123456789abcdef" for c in text)


def problem(name, gold):
    metadata = {"choices": CHOICES} if name == "choice" else {}
    return Problem(id="p", question="q", answer=gold, grader=f"{name}:lenient", metadata=metadata)


@pytest.mark.parametrize("name", ["number", "math", "choice", "f1"])
def test_every_row_of_a_table_is_graded_as_a_person_would(name):
    table = rows(name)
    assert len(table) >= 200
    assert len({row[:2] for row in table}) == len(table), "a row is there twice"
    wrong = []
    for gold, *text, score in table:
        text = written(" | ".join(text))
        graded = grade(text, problem(name, written(gold)))
        if abs(graded.score - float(score)) > 1e-4:
            wrong.append((gold, text, score, graded.score, graded.extracted))
    assert wrong == []
