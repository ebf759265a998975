"""GSM8K, from its upstream files or the hub: grade-school word problems, the answer after `####`.

Source: openai/grade-school-math (MIT). Files are looked for in the folder that EAPO_DATA names:
`gsm8k/train*.jsonl` for training, `gsm8k/test.jsonl` held out. Without EAPO_DATA the hub's
`openai/gsm8k` is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eapo_agents.errors import TaskError
from eapo_agents.types import Problem

_FILES = {"train": "train*.jsonl", "heldout": "test.jsonl"}
_HUB_SPLITS = {"train": "train", "heldout": "test"}


def problems(split: str) -> list[Problem]:
    """Train, held-out (upstream's test set) or all problems."""
    if split == "all":
        return problems("train") + problems("heldout")
    folder = os.environ.get("EAPO_DATA")
    return _from_files(Path(folder) / "gsm8k", split) if folder else _from_hub(split)


def make_problem(record: Mapping[str, Any], split: str, number: int) -> Problem:
    """One upstream record; `number` counts from 0 within the split."""
    try:
        question, solution = record["question"], record["answer"]
        steps, mark, answer = solution.rpartition("####")
        if not mark:
            raise ValueError("no ####")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TaskError(
            f"Record {number} of GSM8K's {split} split is not as upstream has it ({error}): "
            "it needs a question and an answer that ends in #### and a number."
        ) from error
    return Problem(
        id=f"gsm8k/{split}/{number}",
        question=question,
        answer=answer.strip().replace(",", ""),
        grader="number",
        metadata={"solution": steps.strip()},
    )


def _from_files(folder: Path, split: str) -> list[Problem]:
    files = sorted(folder.glob(_FILES[split]))
    if not files:
        raise TaskError(
            f"There is no {_FILES[split]} in '{folder}': put GSM8K's upstream files there, "
            "or unset EAPO_DATA to read the hub."
        )
    try:
        lines = files[0].read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise TaskError(f"GSM8K's file '{files[0]}' cannot be read: {error}.") from error
    return _numbered(records, split)


def _from_hub(split: str) -> list[Problem]:
    from datasets import load_dataset

    try:
        records = load_dataset("openai/gsm8k", "main", split=_HUB_SPLITS[split])
    except Exception as error:  # the library raises a dozen kinds without a common base
        raise TaskError(
            f"GSM8K cannot be had from the hub ({type(error).__name__}): set EAPO_DATA to a folder "
            "with gsm8k/train.jsonl and gsm8k/test.jsonl."
        ) from error
    return _numbered(records, split)


def _numbered(records: Iterable[Mapping[str, Any]], split: str) -> list[Problem]:
    return [make_problem(record, split, number) for number, record in enumerate(records)]
