"""Which field of a file of predictions is the model's: decided once, from the gold file's columns
and all records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Prediction, Record
from evals.other_logs import TEXT
from evals.prediction_files import texts_of

Kind = Literal["completion", "answer", "continuation"]
_COMPLETIONS = (
    *("completion", "completions", "response", "responses", "generation", "generations"),
    *("generated_text", "output", "outputs", "output_text", "model_output", "model_response"),
    *("llm_response", "llm_output", "raw_output", "reply", "resps", "samples", "solution", "text"),
)
"""Names of fields with all that a model wrote, in most tools' files."""
_ANSWERS = (
    *("answer", "answers", "prediction", "predictions", "pred", "predicted_answer"),
    *("model_answer", "final_answer", "extracted_answer", "extracted"),
)
"""Names of fields with the answer alone."""
_EXTRACTED = {
    "generation": ("predicted_answer",),  # NeMo-Skills
    "resps": ("filtered_resps", "extracted_answers"),  # lm-eval
    TEXT: (),
}
"""A tool's field for what the model wrote -> its fields for what the tool made of that."""
_LONG_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """The field that is graded."""

    name: str
    kind: Kind

    def filled(self, prediction: Prediction, text: str) -> Prediction:
        """Return the prediction with the field's text."""
        match self.kind:
            case "completion":
                return replace(prediction, completion=text)
            case "answer":
                return replace(prediction, answer=text)
            case "continuation":
                return replace(prediction, continuation=text)

    def describe(self) -> str:
        """Return it for people."""
        what = {
            "completion": "all that the model wrote",
            "answer": "the answer alone",
            "continuation": "code that continues the prompt",
        }
        return f"'{self.name}' ({what[self.kind]})"


def choose_fields(
    benchmark: Benchmark,
    matched: Sequence[tuple[Record, Problem, Record]],
    path: Path,
    wanted: str | None,
) -> tuple[Field, ...]:
    """Return the model's field, several if no record has two of them, none if no record has one (a
    judge's grades alone can do).

    Args:
        matched: (prediction, its problem, the gold record) of each prediction.
        wanted: the field that the user names.

    Raises:
        BenchmarkError: two fields could be it, or the only one is the data set's own.
    """
    records = [record for record, _, _ in matched]
    if wanted is not None:
        if not any(value_of(record, wanted) is not None for record in records):
            raise BenchmarkError(
                f"'{path}' has no field '{wanted}', which --answer-field names: its fields are "
                f"{_names(records)}."
            )
        return (Field(name=wanted, kind=_kind(benchmark, wanted, records)),)
    present = [n for n in (TEXT, *_COMPLETIONS, *_ANSWERS) if any(n in r for r in records)]
    if benchmark.runs_code:
        present = _of_code(present, records)
    for name, made_from_it in _EXTRACTED.items():
        if name in present:
            present = [p for p in present if p not in made_from_it]
    copies = {name for name in present if _is_gold(name, matched)}
    own = [name for name in present if name not in copies]
    if any(sum(name in record for name in own) > 1 for record in records):
        raise BenchmarkError(
            f"'{path}' has more than one field that could be the model's: "
            f"{' and '.join(map(repr, own))}. Name the one to grade with --answer-field."
        )
    if own:
        return tuple(Field(name=name, kind=_kind(benchmark, name, records)) for name in own)
    if copies:
        raise BenchmarkError(
            f"'{path}' has no field of the model's: {' and '.join(map(repr, sorted(copies)))} is "
            "equal to the gold file's in most records, and so the data set's own. Name the field "
            f"to grade with --answer-field; the file has {_names(records)}."
        )
    return ()


def value_of(record: Record, name: str) -> object:
    """Return the value of a field; a name with dots goes into objects."""
    if name in record:
        return record[name]
    value: object = record
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def has_field(record: Record, name: str) -> bool:
    """Return whether the record has the field, be it null."""
    return name in record or value_of(record, name) is not None


def _of_code(present: list[str], records: Sequence[Record]) -> list[str]:
    """As evalplus, `solution` is preferred to `completion`; lm-eval's filter has whole programs."""
    if "resps" in present and any("filtered_resps" in record for record in records):
        return ["filtered_resps"]
    if all("solution" in record for record in records):
        return ["solution"]
    return present


def _is_gold(name: str, matched: Sequence[tuple[Record, Problem, Record]]) -> bool:
    """Return whether a field is a copy of the gold file's.

    A column of that name that differs in most records is the model's, who wrote over it. An equal
    one is the data set's, unless the file has nothing else of the data set: then the model is good.
    """
    own = [(record, gold) for record, _, gold in matched if name in gold and name in record]
    if not own:
        return False
    others = [
        other
        for record, gold in own[:1]
        for other in record
        if other != name and not _is_id(other) and other in gold and record[other] == gold[other]
    ]
    same = sum(_plain(record[name]) == _plain(gold[name]) for record, gold in own)
    if not others and all(set(record) - {name} <= set(_IDS) for record, _ in own):
        return False
    return 2 * same > len(own)


_IDS = ("task_id", "id", "_id", "unique_id", "problem_id", "question_id", "doc_id", "index", "idx")


def _is_id(name: str) -> bool:
    return name in _IDS


def _plain(value: object) -> str:
    return " ".join(str(value).split())


def _kind(benchmark: Benchmark, name: str, records: Sequence[Record]) -> Kind:
    """Whether the field has whole texts or answers alone: by its name, and by what is in it."""
    if benchmark.runs_code:
        if name in ("completion", "completions"):
            return "continuation"
        return "answer" if name in ("solution", "filtered_resps", *_ANSWERS) else "completion"
    if name == TEXT or (name in _COMPLETIONS and name != "solution"):
        return "completion"
    texts = [t for record in records for t in _texts(value_of(record, name)) if t]
    whole = sum(bool(len(t) > _LONG_CHARS or _WHOLE.search(t.strip())) for t in texts)
    if name in _ANSWERS or name == "solution":
        return "completion" if 2 * whole > len(texts) else "answer"
    return "completion" if whole else "answer"


_WHOLE = re.compile(r"\n|\\boxed|</think>|answer(?:\s*:|\s+is\b)|####", re.IGNORECASE)
"""What an answer alone does not have."""


def _texts(value: object) -> list[str | None]:
    try:
        return texts_of(value)
    except TypeError:
        return []


def _names(records: Sequence[Record]) -> str:
    names = dict.fromkeys(str(key) for record in records[:1000] for key in record)
    return ", ".join(f"'{name}'" for name in list(names)[:30]) or "none"
