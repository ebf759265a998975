"""Converts a store of an older format into a new store; the old one stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, MetaData, RowMapping, Table, func, select

from eapo_agents.errors import UsageError
from eapo_agents.store import schema
from eapo_agents.store.opening import connect, guard, open_engine, read_format, writing
from eapo_agents.store.table_rows import Values
from eapo_agents.types import FORMAT_VERSION, Role

_ROWS_AT_ONCE = 500
OLDEST = 1
"""The oldest format that can be converted."""
ROLE_OF_GRAPH = {
    "consult": Role.CONSULT,
    "chat": Role.CONSULT,  # a conversation was a thread of the consult graph
    "solo": Role.SOLO,
    "expert": Role.EXPERT,
}
"""Format 1 had no roles, only graphs' names. Every other graph's is `Role.OWN`."""


def convert(old: str | Path, new: str | Path) -> int:
    """Write the runs and trajectories of an old store into a new one, all or none, and return the
    number of trajectories.

    Raises:
        UsageError: the old store's format needs no conversion, or the new store is not new.
        StoreError: one of them cannot be used.
    """
    old_engine, old_name = connect(old, create=False)
    try:
        with guard(old_name):
            found = read_format(old_engine, old_name)
        if found is None or not OLDEST <= found < FORMAT_VERSION:
            raise UsageError(
                f"Only a store of a format from {OLDEST} to {FORMAT_VERSION - 1} is converted, and "
                f"'{old_name}' has format {found}."
            )
        is_file = "://" not in str(new)
        if is_file and Path(new).exists():
            raise UsageError(f"The new store '{new}' exists already: give another name.")
        new_engine, new_name = open_engine(new, create=True)
        try:
            with (
                guard(old_name),
                old_engine.connect() as source,
                guard(new_name),
                writing(new_engine) as target,
            ):
                return _copy(source, target, new_name)
        except BaseException:
            new_engine.dispose()  # or SQLite's journal would stay
            if is_file:
                Path(new).unlink(missing_ok=True)
            raise
        finally:
            new_engine.dispose()
    finally:
        old_engine.dispose()


def _copy(source: Connection, target: Connection, new_name: str) -> int:
    if target.execute(select(func.count()).select_from(schema.runs)).scalar():
        raise UsageError(f"The new store '{new_name}' holds runs already: give an empty one.")
    tables = MetaData()
    tables.reflect(source)
    changed = _changed_policies(source, tables.tables.get("turn_policies"))

    def turn(row: RowMapping) -> Values:
        policy = changed.get((row["trajectory_id"], row["turn"]))
        # a turn's number is its name: format 1 had none
        return {**row, "turn_id": str(row["turn"]), "policy": policy, "sampling": None}

    def trajectory(row: RowMapping) -> Values:
        return {**row, "role": ROLE_OF_GRAPH.get(row["graph"], Role.OWN).value}

    def same(row: RowMapping) -> Values:
        return dict(row)

    count = 0
    parts: list[tuple[Table, Callable[[RowMapping], Values]]] = [
        (schema.runs, same),
        (schema.problems, same),
        (schema.trajectories, trajectory),
        (schema.turns, turn),
        (schema.consultations, same),
    ]
    for table, converted in parts:
        rows = source.execute(select(tables.tables[table.name])).mappings()
        for chunk in rows.partitions(_ROWS_AT_ONCE):
            target.execute(table.insert(), [converted(row) for row in chunk])
            count += len(chunk) if table is schema.trajectories else 0
    if target.dialect.name == "postgresql":  # its counter knows nothing of ids that were given
        sequence = func.pg_get_serial_sequence(schema.trajectories.name, "id")
        target.execute(select(func.setval(sequence, func.max(schema.trajectories.c.id))))
    return count


def _changed_policies(source: Connection, table: Table | None) -> dict[tuple[int, int], str]:
    """Return (trajectory, turn) -> the policy of the turns that other weights sampled."""
    if table is None:
        return {}
    return {(row.trajectory_id, row.turn): row.policy for row in source.execute(select(table))}
