"""Traces of tracing platforms as rows to train on: LangSmith's runs, Langfuse's events or traces,
as JSONL, to TRL's conversational {prompt, completion}.

What others recorded has no tokens and no probabilities, so it is for supervised training alone. Of
each trace the row has what was asked first and what was answered last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eapo_agents.errors import TraceError, UsageError
from eapo_agents.secrets import redact

_ROLES = {"human": "user", "ai": "assistant", "developer": "system"}
_CLASSES = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system"}
_INSIDE = (
    "messages",
    "generations",
    "message",
    "choices",
    "input",
    "question",
    "output",
    "answer",
)
"""Where messages stand in an input or output that is an object."""
Message = dict[str, str]


@dataclass(slots=True, kw_only=True)
class ForeignTrace:
    """A trace of a platform, as far as it is read."""

    asked: list[Message] = field(default_factory=list)
    """The messages before the first answer."""
    answer: str | None = None
    scores: dict[str, float] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """The rows of a file, and what was left out."""

    rows: list[dict[str, object]]
    num_traces: int
    num_unscored: int
    """Without the score that was asked for."""
    num_low: int
    num_without_text: int
    """Failed, or without a question or an answer in words."""


def import_rows(file: Path, *, score: str, min_score: float | None) -> Imported:
    """Return the rows of a file's traces.

    Args:
        score: name of the score that decides.
        min_score: least score; None takes every trace.

    Raises:
        UsageError: the file is missing.
        TraceError: it is not JSONL of such traces.
    """
    traces = read_traces(file)
    rows: list[dict[str, object]] = []
    unscored = low = empty = 0
    for trace in traces.values():
        worth = trace.scores.get(score)
        if min_score is not None and worth is None:
            unscored += 1
        elif min_score is not None and worth is not None and worth < min_score:
            low += 1
        elif trace.failed or not trace.answer or not _has_question(trace):
            empty += 1
        else:
            said = {"role": "assistant", "content": trace.answer}
            rows.append({"prompt": trace.asked, "completion": [said]})
    return Imported(
        rows=rows,
        num_traces=len(traces),
        num_unscored=unscored,
        num_low=low,
        num_without_text=empty,
    )


def read_traces(file: Path) -> dict[str, ForeignTrace]:
    """Return trace id -> trace, in the order of the file."""
    found: dict[str, ForeignTrace] = {}
    for number, record in _records(file):
        body = record.get("body")
        if isinstance(record.get("type"), str) and isinstance(body, Mapping):
            _read_event(record["type"], body, found)
        elif "run_type" in record:
            if not record.get("parent_run_id"):
                _read_run(record, found)
        elif "input" in record and "output" in record:
            _read_langfuse_trace(record, found)
        else:
            raise TraceError(
                f"Line {number} of '{file}' is neither a run of LangSmith (run_type, inputs, "
                "outputs) nor an event or a trace of Langfuse (type and body, or input and output)."
            )
    if not found:
        raise TraceError(f"'{file}' has no whole trace: export root runs or traces too.")
    return found


def _records(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise TraceError(f"Line {number} of '{file}' is not a JSON object.")
                yield number, record
    except OSError as error:
        raise UsageError(f"'{file}' cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(f"'{file}' is not JSONL: {error}.") from error


def _read_run(run: Mapping[str, Any], found: dict[str, ForeignTrace]) -> None:
    trace = found.setdefault(str(run.get("trace_id") or run.get("id")), ForeignTrace())
    trace.failed = bool(run.get("error"))
    trace.asked = _until_answer(_messages(run.get("inputs")))
    trace.answer = _last_answer(run.get("outputs"))
    for name, stats in (run.get("feedback_stats") or {}).items():
        if isinstance(stats, Mapping):
            _score(trace, name, stats.get("avg"))


def _read_event(kind: str, body: Mapping[str, Any], found: dict[str, ForeignTrace]) -> None:
    if kind == "trace-create":
        _read_langfuse_trace(body, found)
    elif kind == "score-create" and body.get("traceId"):
        trace = found.setdefault(str(body["traceId"]), ForeignTrace())
        _score(trace, body.get("name"), body.get("value"))


def _read_langfuse_trace(body: Mapping[str, Any], found: dict[str, ForeignTrace]) -> None:
    trace = found.setdefault(str(body.get("id")), ForeignTrace())
    trace.asked = _until_answer(_messages(body.get("input")))
    trace.answer = _last_answer(body.get("output"))
    for score in body.get("scores") or ():
        if isinstance(score, Mapping):
            _score(trace, score.get("name"), score.get("value"))


def _score(trace: ForeignTrace, name: object, value: object) -> None:
    if isinstance(value, int | float):
        trace.scores[str(name)] = float(value)


def _has_question(trace: ForeignTrace) -> bool:
    return any(message["role"] == "user" for message in trace.asked)


def _until_answer(messages: list[Message]) -> list[Message]:
    for index, message in enumerate(messages):
        if message["role"] not in ("system", "user"):
            return messages[:index]
    return messages


def _last_answer(value: object) -> str | None:
    messages = _messages(value, role="assistant")
    said = [message["content"] for message in messages if message["role"] == "assistant"]
    return said[-1] if said else None


def _messages(value: object, *, role: str = "user") -> list[Message]:
    """Return the messages in what a platform holds as input or output, whoever wrote it.

    Args:
        role: whose words a bare text is.
    """
    if isinstance(value, str):
        return [{"role": role, "content": redact(value)}] if value.strip() else []
    if isinstance(value, list):
        return [message for one in value for message in _messages(one, role=role)]
    if not isinstance(value, Mapping):
        return []
    message = _message(value)
    if message is not None:
        return [message] if message["content"] else []
    for name in _INSIDE:
        if name in value:
            return _messages(value[name], role=role)
    texts = [one for one in value.values() if isinstance(one, str)]
    return _messages(texts[0], role=role) if len(texts) == 1 else []


def _message(value: Mapping[Any, Any]) -> Message | None:
    """Return a message of OpenAI's or LangChain's form; None where it is something else."""
    kwargs, kind = value.get("kwargs"), value.get("id")
    if isinstance(kwargs, Mapping) and isinstance(kind, list) and kind:
        role: object = _CLASSES.get(str(kind[-1]).removesuffix("Chunk"), "tool")
        content = kwargs.get("content")
    elif "content" in value and ("role" in value or "type" in value):
        role, content = value.get("role") or value.get("type"), value["content"]
    else:
        return None
    if isinstance(content, list):
        parts = [part.get("text", "") if isinstance(part, Mapping) else part for part in content]
        content = "".join(str(part) for part in parts)
    return {"role": _ROLES.get(str(role), str(role)), "content": redact(str(content or ""))}
