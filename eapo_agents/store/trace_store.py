"""TraceStore: append-only trajectories, one transaction each, on SQLite (WAL) or PostgreSQL.

After a crash every trajectory is there whole or not at all. Several processes may write at once: a
group of rollouts is claimed before it is run, and a claim ends with the process that holds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Select, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite

import eapo_agents
from eapo_agents.errors import StoreError
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import fixed_part
from eapo_agents.store import schema
from eapo_agents.store.opening import guard, make_table, open_engine
from eapo_agents.store.pulse import Pulse, is_alive, this_process
from eapo_agents.store.table_rows import (
    StoredTrajectory,
    api_turn_rows,
    by_trajectory,
    consultation_rows,
    now,
    policy_of,
    problem_of,
    problem_row,
    reward_part_rows,
    sampling_of,
    stored,
    trajectory_row,
    turn_rows,
)
from eapo_agents.types import PolicyVersion, RolloutGroup, Sampling, Trajectory

_PAGE = 200
"""Trajectories read at once."""
_SHAPING = ("seed", "task", "consult")
"""Parts of a recipe that shape trajectories: a run does not continue with others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One collection, training run or evaluation."""

    run_id: str
    kind: str
    """`collect`, `train` or `eval`."""
    created_at: str
    package_version: str
    recipe: Mapping[str, object]
    """The full resolved recipe."""
    sampling: Sampling
    policy: PolicyVersion
    """The policy at the start of the run; each trajectory names its own."""
    num_trajectories: int

    @property
    def system_prompt(self) -> str:
        """The system prompt of the recipe's task; empty where it has none."""
        task = self.recipe.get("task")
        return str(task.get("system_prompt", "")) if isinstance(task, Mapping) else ""


class TraceStore:
    """Where trajectories live."""

    def __init__(self, engine: Engine, name: str) -> None:
        """Use `TraceStore.open`."""
        self._engine = engine
        self.name = name
        """Its file or URL, without a password."""
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        self._known_problems: set[str] = set()
        self._pulse: Pulse | None = None

    @classmethod
    def open(cls, at: str | Path, *, create: bool = False) -> TraceStore:
        """Opens a file or an SQLAlchemy URL; with `create` an empty store is made where there is
        none.

        Raises:
            StoreError: missing, not a store, unreadable, or of a newer format; nothing is changed
            then.
        """
        return cls(*open_engine(at, create=create))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection."""
        if self._pulse is not None:
            self._pulse.stop()
        self._engine.dispose()

    def start_run(
        self,
        run_id: str,
        *,
        kind: str,
        recipe: Mapping[str, object],
        sampling: Sampling,
        policy: PolicyVersion,
    ) -> None:
        """Record a run, or continue it.

        Raises:
            StoreError: the run was started by another policy or under settings that shape
            trajectories.
        """
        row = {
            "run_id": run_id,
            "kind": kind,
            "created_at": now(),
            "package_version": eapo_agents.__version__,
            "recipe": json.dumps(recipe),
            "sampling": json.dumps(asdict(sampling)),
            "policy": json.dumps(asdict(policy)),
        }
        with guard(self.name), self._writing() as connection:
            connection.execute(self._insert(schema.runs).values(row).on_conflict_do_nothing())
            there = connection.execute(
                select(schema.runs).where(schema.runs.c.run_id == run_id)
            ).one()
        before, today = _fixed(json.loads(there.recipe)), _fixed(recipe)
        differing = [key for key in _SHAPING if before.get(key) != today.get(key)]
        if json.loads(there.sampling) != asdict(sampling):
            differing.append("sampling")
        if json.loads(there.policy)["weights"] != policy.weights:
            differing.append("the policy's weights")
        if there.kind != kind:
            differing.append("its kind")
        if differing:
            raise StoreError(
                f"The run '{run_id}' in '{self.name}' was started with other settings "
                f"({', '.join(differing)}): give this one another name or another store."
            )

    def append(
        self,
        trajectory: Trajectory,
        *,
        run_id: str,
        group_key: str,
        replaces_failed: bool = False,
    ) -> bool:
        """Commit one trajectory. One that is there already (same run, group and rollout) is left
        as it is, or with `replaces_failed` gives up its place if it failed.

        Return whether it was new.
        """
        digest, problem = problem_row(trajectory.problem)
        new = self._insert(schema.trajectories).on_conflict_do_nothing()
        with guard(self.name), self._writing() as connection:
            if replaces_failed:
                _move_failed(connection, run_id, group_key, trajectory.rollout)
            if digest not in self._known_problems:
                insert = self._insert(schema.problems).on_conflict_do_nothing()
                connection.execute(insert, {"digest": digest, "problem": problem})
            new_id = connection.execute(
                new.returning(schema.trajectories.c.id),
                trajectory_row(trajectory, run_id, group_key, digest),
            ).scalar()
            if new_id is None:
                return False
            if turns := turn_rows(trajectory, new_id):
                connection.execute(schema.turns.insert(), turns)
            if asked := consultation_rows(trajectory, new_id):
                connection.execute(schema.consultations.insert(), asked)
            if billed := api_turn_rows(trajectory, new_id):
                make_table(connection, schema.api_turns)
                connection.execute(schema.api_turns.insert(), billed)
            if parts := reward_part_rows(trajectory, new_id):
                make_table(connection, schema.reward_parts)
                connection.execute(schema.reward_parts.insert(), parts)
        self._known_problems.add(digest)
        return True

    def have(self, run_id: str) -> dict[str, set[int]]:
        """Group key -> rollouts that are committed."""
        table = schema.trajectories.c
        found: dict[str, set[int]] = {}
        query = select(table.group_key, table.rollout).where(table.run_id == run_id)
        with guard(self.name), self._engine.connect() as connection:
            for group_key, rollout in connection.execute(query):
                found.setdefault(group_key, set()).add(rollout)
        return found

    def outcomes(
        self, run_id: str, group_key: str | None = None
    ) -> dict[str, dict[int, str | None]]:
        """Return group key -> rollout -> its error, None where it did not fail, of all that is
        committed in a run, or in one group of it."""
        table = schema.trajectories.c
        query = select(table.group_key, table.rollout, table.error).where(table.run_id == run_id)
        if group_key is not None:
            query = query.where(table.group_key == group_key)
        found: dict[str, dict[int, str | None]] = {}
        with guard(self.name), self._engine.connect() as connection:
            for key, rollout, error in connection.execute(query):
                found.setdefault(key, {})[rollout] = error
        return found

    def claim(self, run_id: str, group_key: str) -> bool:
        """Takes a group for this process; False where another live process has it. One of another
        machine lives while its pulse does."""
        if self._pulse is None and self._engine.dialect.name == "postgresql":
            self._pulse = Pulse(self._engine, self._owner)
        claims = schema.claims
        here = (claims.c.run_id == run_id) & (claims.c.group_key == group_key)
        row = {"run_id": run_id, "group_key": group_key, "owner": self._owner}
        with guard(self.name), self._writing() as connection:
            connection.execute(self._insert(claims).values(row).on_conflict_do_nothing())
            owner = connection.execute(select(claims.c.owner).where(here)).scalar_one()
            if owner != self._owner and not is_alive(connection, owner):
                # only from the owner that was seen: somebody else may take it over too
                connection.execute(
                    claims.update()
                    .where(here & (claims.c.owner == owner))
                    .values(owner=self._owner)
                )
                owner = connection.execute(select(claims.c.owner).where(here)).scalar_one()
        return bool(owner == self._owner)

    def release(self, run_id: str, group_key: str) -> None:
        """Gives up a claim."""
        claims = schema.claims.c
        with guard(self.name), self._writing() as connection:
            connection.execute(
                schema.claims.delete().where(
                    (claims.run_id == run_id)
                    & (claims.group_key == group_key)
                    & (claims.owner == self._owner)
                )
            )

    def runs(self) -> list[RunInfo]:
        """All runs, the oldest first."""
        trajectories = schema.trajectories
        counts = (
            select(trajectories.c.run_id, func.count().label("num_trajectories"))
            .group_by(trajectories.c.run_id)
            .subquery()
        )
        query = (
            select(
                schema.runs, func.coalesce(counts.c.num_trajectories, 0).label("num_trajectories")
            )
            .outerjoin(counts, counts.c.run_id == schema.runs.c.run_id)
            .order_by(schema.runs.c.created_at, schema.runs.c.run_id)
        )
        with guard(self.name), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            RunInfo(
                run_id=row.run_id,
                kind=row.kind,
                created_at=row.created_at,
                package_version=row.package_version,
                recipe=json.loads(row.recipe),
                sampling=sampling_of(row.sampling),
                policy=policy_of(row.policy),
                num_trajectories=row.num_trajectories,
            )
            for row in rows
        ]

    def trajectories(
        self,
        run_id: str | None = None,
        *,
        group_key: str | None = None,
        latest: int | None = None,
    ) -> Iterator[StoredTrajectory]:
        """Yield all trajectories, or those of a run or of a group, or the latest of them, in the
        order of their commits."""
        table = schema.trajectories
        query = select(table).order_by(table.c.id).limit(_PAGE)
        if run_id is not None:
            query = query.where(table.c.run_id == run_id)
        if group_key is not None:
            query = query.where(table.c.group_key == group_key)
        last = -1
        if latest is not None:
            before = query.with_only_columns(table.c.id).order_by(None)
            before = before.order_by(table.c.id.desc()).limit(1).offset(latest)
            with guard(self.name), self._engine.connect() as connection:
                last = connection.execute(before).scalar_one_or_none() or last
        while page := self._read(query.where(table.c.id > last)):
            yield from page
            last = page[-1].id

    def trajectory(self, trajectory_id: int) -> StoredTrajectory:
        """One trajectory.

        Raises:
            StoreError: there is none of that number.
        """
        found = self._read(
            select(schema.trajectories).where(schema.trajectories.c.id == trajectory_id)
        )
        if not found:
            raise StoreError(
                f"The store '{self.name}' has no trajectory {trajectory_id}: `eapo traces ls` "
                "lists them."
            )
        return found[0]

    def groups(self, run_id: str) -> Iterator[RolloutGroup]:
        """A run's trajectories by group, in the order in which the groups began."""
        table = schema.trajectories
        with guard(self.name), self._engine.connect() as connection:
            keys = (
                connection.execute(
                    select(table.c.group_key)
                    .where(table.c.run_id == run_id)
                    .group_by(table.c.group_key)
                    .order_by(func.min(table.c.id))
                )
                .scalars()
                .all()
            )
        for key in keys:
            members = self._read(
                select(table)
                .where((table.c.run_id == run_id) & (table.c.group_key == key))
                .order_by(table.c.rollout)
            )
            yield RolloutGroup(
                problem=members[0].trajectory.problem,
                trajectories_G=tuple(member.trajectory for member in members),
            )

    def _read(self, query: Select[Any]) -> list[StoredTrajectory]:
        with guard(self.name), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
            ids = [row["id"] for row in rows]
            of_tables = [by_trajectory(connection, table, ids) for table in _OF_ONE]
            digests = {row["problem"] for row in rows}
            known = connection.execute(
                select(schema.problems).where(schema.problems.c.digest.in_(digests))
            )
            problems = {row.digest: problem_of(row.problem) for row in known}
        return [
            stored(
                row,
                problems[row["problem"]],
                *(found.get(row["id"], []) for found in of_tables),
            )
            for row in rows
        ]

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._engine.execution_options(writes=True).begin()

    @cached_property
    def _owner(self) -> str:
        return this_process()


_OF_ONE = (schema.turns, schema.consultations, schema.api_turns, schema.reward_parts)
"""Tables with rows of one trajectory, as `stored` takes them."""


def _move_failed(connection: Connection, run_id: str, group_key: str, rollout: int) -> None:
    """Take a failed trajectory out of its place; its error stays on record."""
    t, record = schema.trajectories, schema.failed_attempts
    place = (t.c.run_id == run_id) & (t.c.group_key == group_key) & (t.c.rollout == rollout)
    failed = place & t.c.error.is_not(None)
    kept = [column.name for column in record.c if column.name != "id"]
    moved = select(*(t.c[name] for name in kept)).where(failed)
    connection.execute(record.insert().from_select(kept, moved))
    ids = select(t.c.id).where(failed).scalar_subquery()
    there = inspect(connection)
    for table in _OF_ONE:
        if there.has_table(table.name):
            connection.execute(table.delete().where(table.c.trajectory_id.in_(ids)))
    connection.execute(t.delete().where(failed))


def _fixed(recipe: Mapping[str, object]) -> Mapping[str, object]:
    """Return the part of a recipe that a run may not change, with today's defaults filled in."""
    try:
        return fixed_part(Recipe.model_validate(recipe))
    except ValidationError:  # a caller's own description of its run
        return recipe
