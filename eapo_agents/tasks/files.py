"""Files of problems: JSON Lines, JSON, CSV, TSV and Parquet, the texts gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eapo_agents.errors import TaskError

Record = Mapping[str, Any]
Numbered = tuple[str, Record]
"""Where a record stands ("Line 3 of 'a.jsonl'"), and the record."""
ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


def is_file(name: str) -> bool:
    """Return whether a task's name is that of a file."""
    return _bare(name).endswith(ENDINGS)


def stem_of(name: str) -> str:
    """Return what a file is called in ids and results: `mine` for `data/mine.jsonl.gz`."""
    whole = Path(name)
    return Path(whole.stem).stem if whole.suffix.lower() == ".gz" else whole.stem


def read_records(path: str | Path) -> Iterator[Numbered]:
    """Yield a file's records, in order; empty lines are skipped.

    Raises:
        TaskError: it cannot be read, or names the first record that is wrong, and how.
    """
    name = _bare(str(path))
    if name.endswith(".parquet"):
        yield from _parquet(path)
        return
    text = _text(path)
    if name.endswith((".csv", ".tsv")):
        yield from _table(text, path, "\t" if name.endswith(".tsv") else ",")
    elif name.endswith(".json"):
        yield from _list(text, path)
    else:
        # not splitlines: a question may hold a Unicode line separator
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                where = f"Line {number} of '{path}'"
                yield where, _object(line, where)


def _bare(name: str) -> str:
    return name.lower().removesuffix(".gz")


def _text(path: str | Path) -> str:
    try:
        data = Path(path).read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"The problem file '{path}' cannot be read: it must be UTF-8 text, and byte "
            f"{error.start} is not; save it as UTF-8."
        ) from error
    except (OSError, EOFError) as error:
        raise TaskError(f"The problem file '{path}' cannot be read: {error}.") from error


def _object(text: str, where: str) -> Record:
    found = _parsed(text, where)
    if not isinstance(found, dict):
        raise TaskError(
            f"{where} is not a problem: a JSON object is needed, got {type(found).__name__}."
        )
    return found


def _parsed(text: str, where: str) -> object:
    try:
        found: object = json.loads(text, object_pairs_hook=_without_doubles)
        return found
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not a problem: {error}.") from error


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        double = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key '{double}' is there twice")
    return found


def _list(text: str, path: str | Path) -> Iterator[Numbered]:
    """Yield the records of a JSON list."""
    found = _parsed(text, f"The file '{path}'") if text.strip() else []
    if not isinstance(found, list):
        raise TaskError(
            f"The problem file '{path}' must hold a JSON list of problems, and holds a "
            f"{type(found).__name__}: put them into a list, or one a line into a .jsonl file."
        )
    for number, record in enumerate(found, start=1):
        where = f"Record {number} of '{path}'"
        if not isinstance(record, dict):
            raise TaskError(
                f"{where} is not a problem: a JSON object is needed, got {type(record).__name__}."
            )
        yield where, record


def _table(text: str, path: str | Path, separator: str) -> Iterator[Numbered]:
    """Yield the records of a table whose first row names the columns."""
    csv.field_size_limit(sys.maxsize)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = [name.strip() for name in next(rows, [])]
        if len(set(names)) < len(names):
            raise TaskError(f"The columns of '{path}' need different names, got {names}.")
        for number, cells in enumerate(rows, start=2):
            if not any(cell.strip() for cell in cells):
                continue
            where = f"Row {number} of '{path}'"
            if len(cells) != len(names):
                raise TaskError(
                    f"{where} is not a problem: the first row names {len(names)} columns, and it "
                    f"has {len(cells)} cells; put cells with '{separator}' into quotes."
                )
            yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise TaskError(f"The problem file '{path}' cannot be read: {error}.") from error


def _parquet(path: str | Path) -> Iterator[Numbered]:
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"Row {number} of '{path}'", record
    except (OSError, ValueError) as error:
        raise TaskError(f"The problem file '{path}' cannot be read: {error}.") from error
