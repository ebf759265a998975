"""Reads one sample of OpenCompass, lighteval and EvalScope into a flat record.

As the logs of `evals/other_logs.py`, samples find their problem by what was asked. Formats:
open-compass/opencompass (predictions/*.json), huggingface/lighteval (details_*.parquet, before and
since 0.10), modelscope/evalscope (predictions and reviews, *.jsonl).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from eapo_agents.errors import BenchmarkError
from evals.benchmark import Record
from evals.other_logs import OPTIONS, QUESTION, TEXT, options_in

_MALFORMED = (KeyError, TypeError, AttributeError, IndexError, ValueError, SyntaxError)


def flat_record(record: Record, where: str) -> Record:
    """Return a sample of one of these tools without its nesting, another record as it is.

    Args:
        where: the record in words, for errors.

    Raises:
        BenchmarkError: it has probabilities of options, and so no text that a model wrote; or it is
            not as its tool writes it.
    """
    try:
        found = _read(record)
    except _MALFORMED as error:
        raise BenchmarkError(
            f"{where} is not as OpenCompass, lighteval or EvalScope writes it ({error!r}): give "
            "JSONL, each line with an id and a completion or answer."
        ) from error
    if found is None:
        return record
    asked, text, name = found
    if not text:
        raise BenchmarkError(
            f"{where} has probabilities of options, and no answer that a model wrote: give a run "
            "in which the model writes."
        )
    made: dict[str, object] = {"id": str(name), QUESTION: asked, TEXT: text}
    options = options_in(asked)
    return made | {OPTIONS: options} if options else made


def _read(record: Record) -> tuple[str, object, object] | None:
    """Return (what was asked, what the model wrote, the sample's number); None if it is of another
    tool."""
    doc, response = record.get("doc"), record.get("model_response")
    if isinstance(doc, Mapping) and isinstance(response, Mapping):
        return str(doc["query"]), _listed(response.get("text")), doc.get("id", "")
    if "full_prompt" in record and "predictions" in record:
        asked = record.get("example") or record["full_prompt"]
        return str(asked), _listed(record["predictions"]), ""
    if "origin_prompt" in record and isinstance(record.get("prediction"), str | list):
        return _last_of_human(record["origin_prompt"]), record["prediction"], record.get("id", "")
    if "index" not in record:
        return None
    score = record.get("sample_score")
    if isinstance(score, Mapping):
        return str(record["input"]), score["score"]["prediction"], record["index"]
    if isinstance(record.get("model_output"), Mapping) and "messages" in record:
        asked = [m["content"] for m in record["messages"] if m["role"] == "user"]
        return _said(asked[-1]), record["model_output"], record["index"]
    if "raw_input" in record and "choices" in record:
        asked = record["raw_input"]
        asked = asked.get("question") or asked.get("problem") or asked.get("Question")
        return str(asked), record["choices"], record["index"]
    return None


def _listed(value: object) -> object:
    """Return lighteval's list of texts, which older versions write as Python's text of it."""
    if isinstance(value, str) and value.startswith("["):
        value = ast.literal_eval(value)
    return list(value) if isinstance(value, list | tuple) else value


def _last_of_human(prompt: object) -> str:
    """Return what OpenCompass asked last: a text, or turns of HUMAN and BOT."""
    if isinstance(prompt, str):
        return prompt
    assert isinstance(prompt, list)
    return str([turn["prompt"] for turn in prompt if turn["role"] in ("HUMAN", "user")][-1])


def _said(content: object) -> str:
    if isinstance(content, str):
        return content
    assert isinstance(content, list)
    return "\n".join(str(part.get("text", "")) for part in content)
