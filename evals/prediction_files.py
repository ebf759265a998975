"""Reads files of predictions as the common tools write them, into flat records.

A record keeps its tool's fields; this module only undoes the nesting: lm-eval's samples,
evalplus's eval_results.json and folders, OpenAI's batch output, HotpotQA's official object, pandas'
orientations, {id: answer}, and JSON arrays whatever the file is called. `evals/other_logs.py` reads
the logs of inspect, HELM and simple-evals.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from evals.benchmark import Benchmark, Record
from evals.other_logs import (
    TEXT,
    helm_file,
    is_helm_list,
    is_log,
    read_archive,
    read_helm_list,
    read_log,
)
from evals.other_records import flat_record
from evals.sources import read_lines, read_records, read_text


def read_file(benchmark: Benchmark, path: Path) -> Sequence[Record]:
    """Return the records of a file, or of evalplus's folder.

    Raises:
        BenchmarkError: it cannot be read, or has a format that is not known.
    """
    if path.is_dir():
        return _folder(benchmark, path)
    name = path.name.removesuffix(".gz")
    if name.endswith(".eval"):
        return read_archive(path)
    if name.endswith((".csv", ".parquet")):
        return _flat_all(list(read_records(path)), path)
    text = read_text(path)
    if name.endswith(".tsv"):
        raise BenchmarkError(f"'{path}' is TSV: give JSON Lines, a JSON array, CSV or Parquet.")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if text.lstrip().startswith("[") or (name.endswith(".json") and "\n{" not in text.strip()):
            read_records(path)  # says where it is not JSON
        return _flat_all(read_lines(text, path), path)
    if isinstance(found, list) and is_helm_list(found):
        return read_helm_list(found, path)
    if isinstance(found, list):
        if benchmark.runs_code and (programs := _bigcode(found)) is not None:
            return programs
        return _flat_all(_objects(found, path), path)
    if isinstance(found, dict):
        official = benchmark.name.startswith("hotpotqa") and {"answer", "sp"} & found.keys()
        if name.endswith(".jsonl") and "\n" not in text.strip() and not official:
            return _flat_all([found], path)
        return _flat_all(_object(benchmark, found, path), path)
    raise BenchmarkError(f"'{path}' holds {type(found).__name__}: give JSON objects, one a line.")


def _flat_all(records: Sequence[Record], path: Path) -> list[Record]:
    """Return records without their tool's nesting, each sample once."""
    flat = [
        _flat(flat_record(record, f"Record {number} of '{path}'"), f"Record {number} of '{path}'")
        for number, record in enumerate(records, start=1)
    ]
    return _of_one_filter(flat, path)


def _bigcode(found: list[object]) -> list[Record] | None:
    """Read bigcode-evaluation-harness's generations: a list of whole programs for each problem."""
    if not found or not all(
        isinstance(made, list) and made and all(isinstance(one, str) for one in made)
        for made in found
    ):
        return None
    return [
        {"task_id": number, "solution": program}
        for number, made in enumerate(found)
        if isinstance(made, list)
        for program in made
    ]


def _objects(found: list[object], path: Path) -> list[Record]:
    for number, item in enumerate(found, start=1):
        if not isinstance(item, dict):
            raise BenchmarkError(
                f"Record {number} of '{path}' is {type(item).__name__}: JSON objects are needed."
            )
    return [item for item in found if isinstance(item, dict)]


def _object(benchmark: Benchmark, found: dict[str, object], path: Path) -> list[Record]:
    """Read one JSON object that holds all predictions."""
    if is_log(found):
        return read_log(found, path)
    if isinstance(found.get("eval"), dict) and "status" in found:
        raise BenchmarkError(
            f"'{path}' is a log of inspect without samples: give the log of the whole run."
        )
    if isinstance(found.get("eval"), dict):
        return _evalplus(found["eval"])
    if benchmark.name.startswith("hotpotqa") and ("answer" in found or "sp" in found):
        return _hotpot(found, path)
    if {"id", "task_id", "_id"} & found.keys() and not _columns(found):
        return [found]
    return _by_id(found, path)


def _columns(found: Mapping[str, object]) -> bool:
    return bool(found) and all(isinstance(value, dict) for value in found.values())


def _by_id(found: dict[str, object], path: Path) -> list[Record]:
    """Read {id: record}, pandas' {column: {row: value}}, {id: text} and {id: [texts]}."""
    if _columns(found) and {"id", "task_id", "_id", "unique_id", "doc_id"} & found.keys():
        rows = {key for column in found.values() if isinstance(column, dict) for key in column}
        return [
            {name: c.get(row) for name, c in found.items() if isinstance(c, dict)}
            for row in sorted(rows, key=lambda r: (len(r), r))
        ]
    if _columns(found):
        return [{"id": key, **value} for key, value in found.items() if isinstance(value, dict)]
    if found and all(isinstance(v, str | int | float | list | None) for v in found.values()):
        return [{"id": key, "answer": value} for key, value in found.items()]
    raise BenchmarkError(
        f"'{path}' is one JSON object of another format: give JSONL, each line with an id and "
        "a completion or answer."
    )


def _hotpot(found: dict[str, object], path: Path) -> list[Record]:
    answers, facts = found.get("answer", {}), found.get("sp", {})
    if not isinstance(answers, dict) or not isinstance(facts, dict) or not (answers or facts):
        raise BenchmarkError(
            f"'{path}' is not HotpotQA's prediction format: a JSON object with 'answer' (id -> "
            "text) and, where there are any, 'sp' (id -> [[title, sentence], ...]) is needed."
        )
    records: list[Record] = []
    for key in answers | facts:
        record: dict[str, object] = {"id": key}
        if key in answers:
            record["answer"] = answers[key]
        if key in facts:
            record["sp"] = facts[key]
        records.append(record)
    return records


def _folder(benchmark: Benchmark, path: Path) -> list[Record]:
    """Read evalplus's other format, a folder for each task with 0.py, 1.py, ...; or HELM's."""
    if (file := helm_file(path)) is not None:
        return list(read_file(benchmark, file))
    files = sorted(
        (f for f in path.glob("*/*.py") if f.stem.isdigit()),
        key=lambda f: (f.parent.name, int(f.stem)),
    )
    if not files or not benchmark.runs_code:
        raise BenchmarkError(
            f"'{path}' is a folder without samples (Task_0/0.py, ...): give a file of predictions."
        )
    return [{"task_id": f.parent.name.replace("_", "/"), "solution": read_text(f)} for f in files]


def _flat(record: Record, where: str) -> Record:
    """Return an lm-eval sample or a line of OpenAI's batch output without its nesting.

    Raises:
        BenchmarkError: it has the probabilities of options.
    """
    if "custom_id" in record and "response" in record:
        return {"id": record["custom_id"], TEXT: record["response"]}
    if "doc_id" not in record or "resps" not in record:
        return record
    if _is_likelihood(record["resps"]):
        raise BenchmarkError(
            f"{where} has probabilities of options (lm-eval's multiple_choice), and no answer that "
            "a model wrote: give a task in which the model writes."
        )
    doc = record.get("doc")
    flat = {key: value for key, value in record.items() if key not in ("doc", "target")}
    return {**(doc if isinstance(doc, dict) else {}), **flat}


def _is_likelihood(resps: object) -> bool:
    """Whether lm-eval's responses are (logarithm, is it the likeliest text) of each option."""
    while isinstance(resps, list) and len(resps) > 0 and isinstance(resps[0], list):
        resps = resps[0]
    return isinstance(resps, list) and len(resps) == 2 and str(resps[1]) in ("True", "False")


def _of_one_filter(records: list[Record], path: Path) -> list[Record]:
    """Return lm-eval's samples once: it writes each again for every filter of its task.

    Raises:
        BenchmarkError: the filters are of programs, which they cut out differently.
    """
    filters = list(dict.fromkeys(str(r["filter"]) for r in records if "filter" in r))
    if len(filters) < 2 or any("resps" not in record for record in records):
        return records
    if any("task_id" in record for record in records):
        raise BenchmarkError(
            f"'{path}' has the samples of {len(filters)} filters ({', '.join(filters)}): keep "
            "those of one."
        )
    return [record for record in records if record.get("filter") == filters[0]]


def _evalplus(found: object) -> list[Record]:
    """Read the programs in evalplus's results."""
    assert isinstance(found, dict)
    return [
        {"task_id": task, "solution": sample.get("solution")}
        for task, samples in found.items()
        for sample in (samples if isinstance(samples, list) else [])
        if isinstance(sample, dict)
    ]


def texts_of(value: object, *, depth: int = 0) -> list[str | None]:
    """Return the texts of a field's value, several if they are samples.

    A list of messages is a conversation, of which the last message counts; the parts of a message
    are one text. None is an answer that was not given.

    Raises:
        TypeError: it holds no text.
    """
    if value is None or (isinstance(value, float) and value != value):
        return [None]
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool) or depth > 8:
        raise TypeError(type(value).__name__)
    if isinstance(value, int | float):
        return [str(int(value)) if float(value).is_integer() else str(value)]
    if isinstance(value, Mapping):
        for key in ("choices", "message", "messages", "content", "completion", "text", "body"):
            if value.get(key) is not None:
                return texts_of(value[key], depth=depth + 1)
        raise TypeError("dict")
    if not isinstance(value, list | tuple) or not value:
        raise TypeError(type(value).__name__)
    if all(isinstance(item, dict) and "role" in item for item in value):
        last = value[-1]
        return texts_of(last, depth=depth + 1) if last["role"] == "assistant" else [None]
    if all(isinstance(item, dict) and "type" in item for item in value):
        parts = [str(item.get("text", "")) for item in value if item["type"] == "text"]
        return ["".join(parts)]
    if any(isinstance(item, bool | float | int) for item in value):
        raise TypeError("list of numbers")
    return [text for item in value for text in texts_of(item, depth=depth + 1)]
