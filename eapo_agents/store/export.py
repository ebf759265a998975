"""Export trajectories to Parquet, which `datasets` loads, or JSONL: one row a trajectory, every
token once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import StoreError, UsageError
from eapo_agents.store.table_rows import StoredTrajectory

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 500
Record = dict[str, object]
"""One row as plain data."""
Writer = Callable[[Iterator[Record], Path], int]


def as_record(stored: StoredTrajectory) -> Record:
    """Return a trajectory as plain data: what the store holds, under the names of the types."""
    problem = stored.trajectory.problem
    record = asdict(stored.trajectory)
    record["problem"] = {**record["problem"], "metadata": json.dumps(dict(problem.metadata))}
    # as a list, since names differ between rows and columns may not
    parts = stored.trajectory.reward_parts
    record["reward_parts"] = [{"name": name, "value": value} for name, value in parts.items()]
    return {
        "id": stored.id,
        "run_id": stored.run_id,
        "group_key": stored.group_key,
        "created_at": stored.created_at,
        **record,
    }


def export(trajectories: Iterable[StoredTrajectory], file: str | Path) -> int:
    """Write a .parquet or .jsonl file, whole or not at all. Return the number of rows.

    Raises:
        UsageError: another ending.
        StoreError: the file cannot be written.
    """
    return _write(map(as_record, trajectories), Path(file), _WRITERS)


def export_rows(rows: Iterable[Record], file: str | Path) -> int:
    """The same for rows of text, such as those of `pairs`.

    Raises:
        UsageError: another ending.
        StoreError: the file cannot be written.
    """
    return _write(iter(rows), Path(file), {**_WRITERS, ".parquet": _write_inferred})


def _write(rows: Iterator[Record], file: Path, writers: Mapping[str, Writer]) -> int:
    if file.suffix not in writers:
        raise UsageError(
            f"An export is a .parquet or a .jsonl file, got '{file}': give one of these endings."
        )
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        num_rows = writers[file.suffix](rows, temporary)
        temporary.replace(file)
    except OSError as error:
        raise StoreError(
            f"The export '{file}' cannot be written: {error.strerror or error}."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return num_rows


def _write_inferred(rows: Iterator[Record], file: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    pq.write_table(table, file, compression="zstd")
    return int(table.num_rows)


def _write_jsonl(records: Iterator[Record], file: Path) -> int:
    num_rows = 0
    with file.open("w", encoding="utf-8") as out:
        for record in records:
            out.write(json.dumps(record) + "\n")
            num_rows += 1
    return num_rows


def _write_parquet(records: Iterator[Record], file: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    num_rows = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while chunk := list(islice(records, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
            num_rows += len(chunk)
    return num_rows


_WRITERS: dict[str, Writer] = {
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}


def _schema() -> pa.Schema:
    """Return the columns' types. Inferred ones would rest on the first rows, which may be null."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    sampling = [("temperature", real), ("top_p", real), ("max_new_tokens", whole)]
    policy = [("model", text), ("base", text), ("weights", text), ("step", whole)]
    turn = _turn_type(pa.struct(policy), pa.struct(sampling))
    problem = [(name, text) for name in ("id", "question", "answer", "grader", "metadata")]
    return pa.schema(
        [
            ("id", whole),
            *((name, text) for name in ("run_id", "group_key", "created_at")),
            ("problem", pa.struct(problem)),
            ("graph", text),
            ("role", text),
            ("turns", pa.list_(turn)),
            ("stop_reason", text),
            ("answer", text),
            ("reward", real),
            ("correct", pa.bool_()),
            ("error", text),
            ("policy", pa.struct(policy)),
            ("sampling", pa.struct(sampling)),
            ("seed", whole),
            ("rollout", pa.int32()),
            ("global_step", whole),
            ("duration_s", real),
            ("reward_parts", pa.list_(pa.struct([("name", text), ("value", real)]))),
        ]
    )


def _turn_type(policy: pa.DataType, sampling: pa.DataType) -> pa.DataType:
    """Return the type of a turn."""
    import pyarrow as pa

    text, real, whole = pa.string(), pa.float64(), pa.int64()
    tokens = pa.list_(pa.int32())
    consultation = pa.struct(
        [
            ("slot", pa.int32()),
            *((name, text) for name in ("expert", "query", "reply", "status")),
            *((name, real) for name in ("rho", "u", "latency_s")),
            ("tokens", whole),
            ("cost_usd", real),
            ("error", text),
        ]
    )
    return pa.struct(
        [
            ("context_ids", tokens),
            ("completion_ids", tokens),
            ("logprobs", pa.list_(pa.float32())),
            ("parent", pa.int32()),
            ("text", text),
            ("finish_reason", text),
            ("consultations", pa.list_(consultation)),
            ("policy", policy),
            ("sampling", sampling),
            ("id", text),
            (
                "billed",
                pa.struct(
                    [("prompt_tokens", whole), ("completion_tokens", whole), ("cost_usd", real)]
                ),
            ),
        ]
    )
