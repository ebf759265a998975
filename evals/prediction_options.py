"""What a prediction for a multiple choice says of options: their order, and places for letters."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.types import Problem
from evals.benchmark import Record
from evals.matching import squeezed
from evals.prediction_fields import Field, has_field, value_of
from evals.prediction_files import texts_of

_LABEL = re.compile(r"\s*\(?([A-Z])[).:]\s+(?=\S)")
_LETTER = re.compile(r"\s*\(?[A-Z][).]?\s*")
_PLACE = re.compile(r"\s*\d{1,2}\s*")


def options_of(record: Record) -> list[str]:
    """Return the options that a record has in `choices` or `options`, in its order and without
    letters in front; none where it has none."""
    shown = record.get("choices", record.get("options"))
    if isinstance(shown, Mapping):
        shown = shown.get("text")  # beside "label"
    if not isinstance(shown, list | tuple) or len(shown) < 2:
        return []
    if not all(isinstance(o, str | int | float) and not isinstance(o, bool) for o in shown):
        return []
    texts = [str(option) for option in shown]
    if all(_LETTER.fullmatch(text) for text in texts):
        return []
    labels = [m[1] if (m := _LABEL.match(text)) else "" for text in texts]
    if labels == list(string.ascii_uppercase[: len(texts)]):
        texts = [_LABEL.sub("", text, count=1) for text in texts]
    return texts


def refuse_places(
    rows: Sequence[tuple[Record, Problem]], fields: Sequence[Field], path: Path
) -> None:
    """Refuse answers to multiple choices that are all numbers, and not all an option's text: they
    are places, counted from 0 or from 1.

    Raises:
        BenchmarkError: they are.
    """
    is_place, example = False, ""
    for record, problem in rows:
        field = next((f for f in fields if has_field(record, f.name)), None)
        if field is None or field.kind != "answer" or "choices" not in problem.metadata:
            return
        try:
            texts = texts_of(value_of(record, field.name))
        except TypeError:
            return  # said elsewhere
        options = [squeezed(str(option)) for option in problem.metadata["choices"]]
        for text in texts:
            if text and not _PLACE.fullmatch(text):
                return
            if text and squeezed(text) not in options:
                is_place, example = True, f"'{field.name}' is {text.strip()}"
    if is_place:
        raise BenchmarkError(
            f"'{path}' answers multiple choices with numbers ({example}), which could be counted "
            "from 0 or from 1: give letters, or the options' texts."
        )
