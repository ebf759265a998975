"""MMLU: four-way multiple choice in 57 subjects.

Source: hub cais/mmlu; upstream files of hendrycks/test (MIT), one CSV without a header a subject:
question, A, B, C, D, letter. A folder of them, or one of them, can be given. Zero-shot with a chat
prompt: upstream's script is five-shot and compares the letters' probabilities, so the two are not
the same figure. The accuracy is over questions, as upstream's overall figure is.
"""

from __future__ import annotations

import csv
import io
import string
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record
from evals.sources import read_records, read_text

PROMPT = (
    "Answer the following multiple choice question about {subject}.\n\n{question}\n\n{options}\n\n"
    "End with 'Answer: ' and the letter."
)


def options_of(choices: list[str]) -> str:
    """Return the options as lettered lines."""
    return "\n".join(f"{letter}) {text}" for letter, text in zip(string.ascii_uppercase, choices))  # noqa: B905


def read(path: Path) -> list[Record]:
    """Read one subject's CSV, a folder of them, or a table with the hub's columns.

    Raises:
        BenchmarkError: the file is missing, or a line does not have six cells.
    """
    if path.is_dir():
        files = sorted(path.glob("*.csv"))
        if not files:
            raise BenchmarkError(f"There is no CSV file in '{path}': give MMLU's test folder.")
        return [record for file in files for record in read(file)]
    if not path.name.removesuffix(".gz").endswith(".csv"):
        return read_records(path)
    subject = path.name.removesuffix(".gz").removesuffix(".csv").removesuffix("_test")
    records: list[Record] = []
    for row, cells in enumerate(csv.reader(io.StringIO(read_text(path)))):
        if len(cells) != 6 or cells[5] not in "ABCD":
            raise BenchmarkError(
                f"Row {row} of '{path}' is not in MMLU's format: it needs six cells and no "
                f"header, the last cell a letter from A to D, got {len(cells)} cells."
            )
        records.append(
            {
                "subject": subject,
                "row": row,
                "question": cells[0],
                "choices": cells[1:5],
                "answer": "ABCD".index(cells[5]),
            }
        )
    return records


def _problem(record: Record, number: int) -> Problem:
    subject, choices = str(record["subject"]), [str(c) for c in record["choices"]]
    return Problem(
        id=f"{subject}/{record.get('row', number)}",
        question=PROMPT.format(
            subject=subject.replace("_", " "),
            question=str(record["question"]).strip(),
            options=options_of(choices),
        ),
        answer=string.ascii_uppercase[int(record["answer"])],
        grader="choice:lenient",
        metadata={"choices": choices, "subject": subject},
    )


MMLU = Benchmark(
    name="mmlu",
    title="MMLU",
    version="2",
    hub=Hub(repo="cais/mmlu", config="all", split="test"),
    file="mmlu/test",
    licence="MIT",
    problem=_problem,
    read=read,
)
