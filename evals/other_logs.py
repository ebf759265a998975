"""Reads the logs of inspect, HELM and simple-evals into flat records.

These tools number their samples in their own way and shuffle options, so a record has what was
asked (`QUESTION`, `OPTIONS`) beside the model's text (`TEXT`). `evals/matching.py` finds the
problem by it. Formats: UKGovernmentBEIS/inspect_ai (.json and .eval, version 2), stanford-crfm/helm
(scenario_state.json, display_predictions.json), openai/simple-evals (*_allresults.json).
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from eapo_agents.errors import BenchmarkError
from evals.benchmark import Record
from evals.sources import read_text

TEXT = "model output"
"""What the model wrote, where its tool nests it."""
QUESTION = "question asked"
"""What it was asked, as a text that holds the problem's question."""
OPTIONS = "options shown"
"""The options of a multiple choice, in the order that the model saw."""
_ATTACHMENT = "attachment://"
_MAX_BYTES = 1 << 30
"""Of one sample of a log."""
_ZSTANDARD = 93
"""A ZIP archive's number for it, which Python 3.11 cannot read."""
_OPTION = re.compile(r"^\s*\(?([A-Z])[).:]\s+(.+?)\s*$", re.MULTILINE)
_MALFORMED = (KeyError, TypeError, AttributeError, IndexError, AssertionError)
_SAMPLE = re.compile(r"samples/.+\.json")
_HELM_FILE = "scenario_state.json"


def is_log(found: Mapping[str, object]) -> bool:
    """Return whether a JSON object is a log that `read_log` reads."""
    return any(isinstance(found.get(key), list) for key in ("request_states", "convos", "samples"))


def read_log(found: Mapping[str, object], path: Path) -> list[Record]:
    """Return the records of a log.

    Raises:
        BenchmarkError: it is not as its tool writes it.
    """
    try:
        if isinstance(states := found.get("request_states"), list):
            return [record for state in states for record in _of_helm(state, path)]
        if isinstance(convos := found.get("convos"), list):
            return [_of_simple_evals(convo, number) for number, convo in enumerate(convos)]
        samples = found["samples"]
        assert isinstance(samples, list)
        return [_of_inspect(sample) for sample in samples]
    except _MALFORMED as error:
        _refuse(path, f"{type(error).__name__}: {error}", error)


def read_archive(path: Path) -> list[Record]:
    """Return the records of an .eval log of inspect, a ZIP archive with a JSON file a sample.

    Raises:
        BenchmarkError: it is not one, or it has no samples.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if _SAMPLE.fullmatch(e.filename)]
            records = [_of_inspect(json.loads(_content(archive, entry))) for entry in entries]
    except FileNotFoundError as error:
        raise BenchmarkError(f"There is no file '{path}': check the path.") from error
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        _refuse(path, str(error), error)
    except _MALFORMED as error:
        _refuse(path, f"{type(error).__name__}: {error}", error)
    if not records:
        raise BenchmarkError(f"'{path}' is an archive without samples: give inspect's .eval log.")
    return records


def is_helm_list(found: Sequence[object]) -> bool:
    """Return whether a JSON array is HELM's display_predictions.json."""
    return bool(found) and all(
        isinstance(item, dict) and {"instance_id", "predicted_text"} <= item.keys()
        for item in found
    )


def read_helm_list(found: Sequence[Mapping[str, object]], path: Path) -> list[Record]:
    """Return the records of display_predictions.json, with the questions of instances.json, which
    HELM writes beside it.

    Raises:
        BenchmarkError: there is no such file: the predictions name HELM's instances only.
    """
    beside = path.parent / "instances.json"
    if not beside.exists():
        raise BenchmarkError(
            f"'{path}' names HELM's instances, whose questions are in its instances.json: keep "
            f"that file in the same folder, or give {_HELM_FILE}."
        )
    try:
        instances = {instance["id"]: instance for instance in json.loads(read_text(beside))}
        return [
            record
            for item in found
            for record in _of_helm(
                {
                    **item,
                    "instance": instances[item["instance_id"]]
                    | {"perturbation": item.get("perturbation")},
                    "result": {"completions": [{"text": item["predicted_text"]}]},
                },
                path,
            )
        ]
    except (ValueError, *_MALFORMED) as error:
        _refuse(beside, f"{type(error).__name__}: {error}", error)


def helm_file(folder: Path) -> Path | None:
    """Return the file with the predictions in the folder of a HELM run."""
    names = (_HELM_FILE, "display_predictions.json")
    return next((folder / name for name in names if (folder / name).exists()), None)


def _refuse(path: Path, why: str, error: Exception) -> NoReturn:
    raise BenchmarkError(
        f"'{path}' is not as inspect, HELM or simple-evals writes its logs ({why}): give JSONL, "
        "each line with an id and a completion or answer."
    ) from error


def _of_inspect(sample: Mapping[str, object]) -> Record:
    """Read a sample; a long text may stand among its attachments."""
    attached = sample.get("attachments")
    texts: Mapping[str, str] = attached if isinstance(attached, dict) else {}
    output = sample.get("output")
    made = output if isinstance(output, dict) else {}
    choices = made.get("choices") or []
    written = choices[0]["message"]["content"] if choices else made.get("completion") or None
    record: dict[str, object] = {
        "id": sample["id"],
        QUESTION: _attached(_asked(sample["input"]), texts),
        TEXT: _attached(written, texts),
    }
    options = sample.get("choices")
    return record | {OPTIONS: options} if isinstance(options, list) and options else record


def _attached(value: object, texts: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return texts.get(value.removeprefix(_ATTACHMENT), value) if _ATTACHMENT in value else value
    if isinstance(value, list):
        return [_attached(item, texts) for item in value]
    if isinstance(value, dict):
        return {key: _attached(item, texts) for key, item in value.items()}
    return value


def _asked(value: object) -> str:
    """Return the text of an input: a text, or the user's last message."""
    if isinstance(value, str):
        return value
    assert isinstance(value, list)
    said = [m["content"] for m in value if m["role"] == "user"]
    content = said[-1] if said else ""
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in content)


def _of_helm(state: Mapping[str, object], path: Path) -> Iterator[Record]:
    """Read a request's state; a perturbed or training instance is none of the benchmark's."""
    instance, result = state["instance"], state["result"]
    assert isinstance(instance, dict)
    assert isinstance(result, dict)
    if state.get("reference_index") is not None:
        raise BenchmarkError(
            f"'{path}' has a request for each option (HELM's multiple_choice_separate), and so no "
            "answer that a model wrote: give a run with another adapter."
        )
    if instance.get("perturbation") or instance.get("split") == "train":
        return
    record: dict[str, object] = {"id": instance["id"], QUESTION: instance["input"]["text"]}
    mapping = state.get("output_mapping")
    references = [r["output"]["text"] for r in instance.get("references") or []]
    options = [mapping[k] for k in sorted(mapping)] if isinstance(mapping, dict) else references
    if len(options) > 1:
        record[OPTIONS] = options
    for completion in result["completions"] or [{"text": None}]:
        yield {**record, TEXT: completion["text"]}


def _of_simple_evals(convo: Sequence[Mapping[str, object]], number: int) -> Record:
    last = convo[-1]
    text = last["content"] if last["role"] == "assistant" else None
    asked = _asked(list(convo))
    record: dict[str, object] = {"id": str(number), QUESTION: asked, TEXT: text}
    options = options_in(asked)
    return record | {OPTIONS: options} if options else record


def options_in(asked: str) -> list[str]:
    """Return the last lettered options in what was asked; none where there are fewer than two."""
    shown = _OPTION.findall(asked)
    begin = max((i for i, (letter, _) in enumerate(shown) if letter == "A"), default=len(shown))
    options = [option for _, option in shown[begin:]]
    return options if len(options) > 1 else []


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return an entry's content; Zstandard, which inspect writes, is read by Arrow."""
    if entry.file_size > _MAX_BYTES:
        raise ValueError(f"{entry.filename} has {entry.file_size:,} bytes")
    if entry.compress_type != _ZSTANDARD:
        return archive.read(entry)
    import pyarrow

    with open(str(archive.filename), "rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
        if header[:4] != b"PK\x03\x04":
            raise ValueError(f"{entry.filename} is damaged")
        file.seek(sum(struct.unpack("<HH", header[26:30])), 1)  # its name, and what is extra
        packed = file.read(entry.compress_size)
    with pyarrow.CompressedInputStream(pyarrow.py_buffer(packed), "zstd") as stream:
        content: bytes = stream.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise ValueError(f"{entry.filename} is damaged")
    return content
