"""Reads benchmarks: upstream's own files, a folder of them (EAPO_DATA), or the hub."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from eapo_agents.errors import BenchmarkError
from eapo_agents.schedules import counter_key
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Loaded, Record


def load(
    benchmark: Benchmark, path: str | Path | None = None, *, with_images: bool = False
) -> Loaded:
    """The benchmark's problems.

    Args:
        path: upstream's file. Without it, the folder EAPO_DATA is searched, then the hub asked.
        with_images: include the questions with an image, which no policy here can see.

    Raises:
        BenchmarkError: they cannot be had or read; says how to get them.
    """
    if path is None and (folder := os.environ.get("EAPO_DATA")):
        found = sorted(Path(folder).glob(benchmark.file))
        if not found and benchmark.hub is None:
            missing = f"There is no {benchmark.file} in '{folder}' (EAPO_DATA)."
            raise BenchmarkError(f"{missing} {benchmark.obtain}".strip())
        path = found[0] if found else None
    if path is None:
        records, origin = _from_hub(benchmark)
    else:
        path = Path(path)
        records, origin = (benchmark.read or read_records)(path), str(path)
    records = benchmark.arrange(records)
    problems = benchmark.make_problems(records, origin)
    kept = [
        (p, r)
        for p, r in zip(problems, records, strict=True)
        if p is not None and (with_images or not has_image(p))
    ]
    if not kept:
        raise BenchmarkError(f"'{origin}' holds no problem of {benchmark.title}.")
    ids = [problem.id for problem, _ in kept]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise BenchmarkError(
            f"'{origin}' has the problem '{twice}' twice: give upstream's own file."
        )
    return _loaded(kept, origin)


def has_image(problem: Problem) -> bool:
    """Return whether the question has an image."""
    return bool(problem.metadata.get("image"))


def without_images(loaded: Loaded) -> Loaded:
    """Return the problems whose question has no image."""
    pairs = zip(loaded.problems, loaded.records, strict=True)
    return _loaded([(p, r) for p, r in pairs if not has_image(p)], loaded.origin)


def _loaded(kept: list[tuple[Problem, Record]], origin: str) -> Loaded:
    canonical = json.dumps([r for _, r in kept], sort_keys=True, default=str)
    return Loaded(
        problems=tuple(p for p, _ in kept),
        records=tuple(r for _, r in kept),
        origin=origin,
        digest=hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest(),
    )


def load_limited(
    benchmark: Benchmark,
    path: str | Path | None,
    limit: int | None,
    only: Sequence[str] | None = None,
) -> Loaded:
    """Load the benchmark's problems: those with the ids `only`, or the first `limit` of them in an
    order that their ids decide. The digest is that of all.

    Raises:
        BenchmarkError: as `load` does, or there is no problem with one of the ids.
    """
    loaded = load(benchmark, path)
    if only is not None:
        numbers = chosen([p.id for p in loaded.problems], only, benchmark.title)
        return _these(loaded, numbers)
    if limit is None or limit >= len(loaded.problems):
        return loaded
    numbers = sorted(
        range(len(loaded.problems)), key=lambda i: counter_key("limit", 0, loaded.problems[i].id)
    )[:limit]
    return _these(loaded, sorted(numbers))


def _these(loaded: Loaded, numbers: Sequence[int]) -> Loaded:
    return replace(
        loaded,
        problems=tuple(loaded.problems[i] for i in numbers),
        records=tuple(loaded.records[i] for i in numbers),
    )


def chosen(ids: Sequence[str], only: Sequence[str], title: str) -> list[int]:
    """Return the places of the problems with the ids `only`, in their order.

    Raises:
        BenchmarkError: there is no problem with one of the ids.
    """
    wanted = set(only)
    if unknown := sorted(wanted - set(ids)):
        raise BenchmarkError(
            f"{title} has no problem '{unknown[0]}': its ids are like "
            f"{', '.join(repr(one) for one in ids[:3])}."
        )
    return [i for i, one in enumerate(ids) if one in wanted]


def read_records(path: Path) -> list[Record]:
    """Records of a .jsonl, .json, .csv or .parquet file, gzipped or not.

    Raises:
        BenchmarkError: missing, unreadable, or of another format; says which line.
    """
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return _parquet(path)
    text = read_text(path)
    if name.endswith(".csv"):
        csv.field_size_limit(sys.maxsize)
        return list(csv.DictReader(io.StringIO(text)))
    if name.endswith(".json") and text.lstrip().startswith("["):
        found = _json(text, f"'{path}'")
        assert isinstance(found, list)
        return [_record(item, path, i) for i, item in enumerate(found)]
    return read_lines(text, path)


def read_lines(text: str, path: Path) -> list[Record]:
    """JSON objects, one a line; empty lines are skipped."""
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            records.append(_record(_json(line, f"line {number} of '{path}'"), path, number))
    return records


def read_text(path: Path) -> str:
    """A text file, gzipped or not.

    Raises:
        BenchmarkError: it cannot be read.
    """
    try:
        if path.is_dir():
            raise BenchmarkError(f"'{path}' is a folder: give upstream's file itself.")
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise BenchmarkError(f"There is no file '{path}': check the path.") from error
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"'{path}' cannot be read as text: {error}.") from error


def _json(text: str, where: str) -> object:
    try:
        found: object = json.loads(text)
        return found
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where[0].upper()}{where[1:]} is not JSON: {error}.") from error


def _record(item: object, path: Path, number: int) -> Record:
    if not isinstance(item, dict):
        raise BenchmarkError(
            f"Record {number} of '{path}' is {type(item).__name__}: JSON objects are needed."
        )
    return item


def _parquet(path: Path) -> list[Record]:
    import pyarrow.parquet

    try:
        rows: list[Record] = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"'{path}' cannot be read as Parquet: {error}.") from error
    return rows


def _from_hub(benchmark: Benchmark) -> tuple[list[Record], str]:
    hub = benchmark.hub
    if hub is None:
        raise BenchmarkError(
            f"{benchmark.title} is not on the hub. {benchmark.obtain} Then give the file with "
            f"--data {benchmark.name}=FILE, or its folder as EAPO_DATA."
        )
    from datasets import load_dataset

    try:
        found = load_dataset(hub.repo, hub.config, split=hub.split, streaming=hub.streamed)
        return [dict(record) for record in found], f"hub:{hub.repo}"
    except Exception as error:  # the library raises a dozen kinds without a common base
        first = str(error).strip().splitlines()
        raise BenchmarkError(
            f"{benchmark.title} cannot be had from the hub ({hub.repo}: {type(error).__name__}"
            f"{': ' + first[0][:200] if first else ''}). {benchmark.obtain} A file of upstream's "
            f"does as well: --data {benchmark.name}=FILE, or {benchmark.file} in the folder that "
            "EAPO_DATA names."
        ) from error
