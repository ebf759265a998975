"""GPQA diamond: 198 four-way questions by experts, meant to be hard to search for.

Source: hub Idavidrein/gpqa (CC BY 4.0), gated: its authors ask that no example be shown in plain
text, so that models are not trained on it. The hub's file is read into memory without a cache, and
prompts and answers are stored sealed. Files: gpqa_diamond.csv, or dataset.zip, which upstream
distributes with a password. The options are shuffled as openai/simple-evals does: one
`Random(0)`, a sample of 4 for each question in the file's order. Zero-shot; DeepSeek-R1's sampling.
"""

from __future__ import annotations

import csv
import io
import random
import zipfile
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record
from evals.benchmarks.mmlu import options_of
from evals.sources import read_records

PROMPT = (
    "Answer the following multiple choice question.\n\n{question}\n\n{options}\n\n"
    "Reason step by step, and end with 'Answer: ' and the letter."
)
_PASSWORD = b"deserted-untie-orchid"
"""Upstream's README prints it: it keeps out crawlers, not people."""


def read(path: Path) -> list[Record]:
    """Read the CSV, or the archive, which is opened in memory.

    Raises:
        BenchmarkError: the file is missing, or the archive has no diamond set.
    """
    if path.suffix != ".zip":
        return read_records(path)
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("gpqa_diamond.csv"))
            text = archive.read(name, pwd=_PASSWORD).decode("utf-8-sig")
    except (OSError, zipfile.BadZipFile, RuntimeError, StopIteration) as error:
        raise BenchmarkError(f"'{path}' is not GPQA's dataset.zip ({error!r}).") from error
    return list(csv.DictReader(io.StringIO(text)))


def arrange(records: list[Record]) -> list[Record]:
    """Add each question's order of options."""
    rng = random.Random(0)
    return [{**record, "permutation": rng.sample(range(4), 4)} for record in records]


def _problem(record: Record, number: int) -> Problem:
    texts = [
        record["Correct Answer"],
        *(record[f"Incorrect Answer {i}"] for i in (1, 2, 3)),
    ]
    choices = [str(texts[i]).strip() for i in record["permutation"]]
    return Problem(
        id=str(record.get("Record ID") or f"gpqa/{number}"),
        question=PROMPT.format(
            question=str(record["Question"]).strip(), options=options_of(choices)
        ),
        answer="ABCD"[record["permutation"].index(0)],
        grader="choice:lenient",
        metadata={"choices": choices},
    )


GPQA = Benchmark(
    name="gpqa",
    title="GPQA diamond",
    version="2",
    hub=Hub(repo="Idavidrein/gpqa", config="gpqa_diamond", split="train", streamed=True),
    file="gpqa/*",
    licence="CC BY 4.0; not to be shown in plain text",
    obtain=(
        "It is gated: accept its terms at huggingface.co/datasets/Idavidrein/gpqa, log in "
        "(hf auth login), and run the command again; or give upstream's dataset.zip."
    ),
    problem=_problem,
    read=read,
    arrange=arrange,
    temperature=0.6,
    top_p=0.95,
    max_new_tokens=32_768,
    sealed=True,
    published={"EAPO, leaderboard": 49.92},
)
