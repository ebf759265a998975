"""A trace store to look at: pages of it, never all of it, and nothing is ever written.

A training run may write at the same time. Connections are read-only and short.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, RowMapping, Select, case, func, or_, select

from eapo_agents.store import schema
from eapo_agents.store.briefs import Brief, Found, Hit, Tally, Wanted, hit_of
from eapo_agents.store.opening import guard, open_to_read
from eapo_agents.store.pulse import is_alive
from eapo_agents.store.table_rows import StoredTrajectory, problem_of, stored
from eapo_agents.store.trace_store import TraceStore
from eapo_agents.types import Problem, Role

PAGE = 100
"""Trajectories of a page."""
_BLOCK = 4_000
"""Trajectories that are searched between two looks at the clock."""
_T = schema.trajectories.c
_Where: TypeAlias = Sequence[ColumnElement[bool]]


class StoreBrowser(TraceStore):
    """A store that is only looked at."""

    @classmethod
    def look_into(cls, at: str | Path) -> StoreBrowser:
        """Open a store without writing anything, not even beside it.

        Raises:
            StoreError: missing, not a store, unreadable, or of another format.
        """
        return cls(*open_to_read(at))

    def steps(self, run_id: str) -> list[Tally]:
        """Return the sums of each training step of a run, in their order."""
        query = select(_T.global_step, *_SUMS).where(_of_run(run_id))
        rows = self._rows(query.group_by(_T.global_step).order_by(_T.global_step))
        return [_tally(str(row[0]), row[1:]) for row in rows]

    def groups_of(
        self, run_id: str, *, step: int | None = None, page: int = 0, size: int = PAGE
    ) -> list[Tally]:
        """Return the sums of each group of a run, or of one step of it, in the order in which they
        began: those of one page, counted from 0."""
        query = select(_T.group_key, *_SUMS, func.min(_T.problem))
        query = query.group_by(_T.group_key).order_by(func.min(_T.id))
        query = query.limit(size).offset(page * size)
        rows: Sequence[Any] = ()
        if step is not None:  # the keys of training groups begin with their step
            begins = (_T.group_key >= f"{step}/") & (_T.group_key < f"{step}0")
            at_step = _T.global_step == step
            rows = self._rows(query.where(_T.run_id == run_id, begins, at_step))
        if not rows:
            where = [] if step is None else [_T.global_step == step]
            rows = self._rows(query.where(_of_run(run_id), *where))
        problems = self._problems({row[-1] for row in rows})
        return [_tally(row[0], row[1:-1], problems[row[-1]]) for row in rows]

    def briefs(self, wanted: Wanted, limit: int = PAGE) -> list[Brief]:
        """Return the latest trajectories of those that are wanted, the latest first."""
        query = select(schema.trajectories).where(*_where(wanted))
        return self._briefs(query.order_by(_T.id.desc()).limit(limit))

    def group(self, run_id: str, group_key: str) -> list[StoredTrajectory]:
        """Return the rollouts of a group with all that they hold, in the order of their numbers."""
        query = select(schema.trajectories)
        query = query.where(_T.run_id == run_id, _T.group_key == group_key)
        return self._read(query.order_by(_T.rollout))

    def groups_without_turns(
        self, run_id: str, keys: Sequence[str]
    ) -> dict[str, list[StoredTrajectory]]:
        """Return group key -> its rollouts, in the order of their numbers, with no turns."""
        query = select(schema.trajectories).where(_T.run_id == run_id, _T.group_key.in_(keys))
        with guard(self.name), self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_T.rollout)).mappings().all()
        problems = self._problems({row["problem"] for row in rows})
        found: dict[str, list[StoredTrajectory]] = {}
        for row in rows:
            brief = stored(row, problems[row["problem"]], (), (), (), ())
            found.setdefault(row["group_key"], []).append(brief)
        return found

    def neighbours(self, of: StoredTrajectory) -> tuple[int | None, int | None]:
        """Return the numbers of the rollouts before and behind one: in its group, else in the
        groups of its run that were stored before and behind it."""
        table = schema.trajectories
        of_group = (_T.run_id == of.run_id) & (_T.group_key == of.group_key)
        rows = self._rows(select(_T.id).where(of_group).order_by(_T.rollout))
        ids = [row[0] for row in rows]
        place = ids.index(of.id)
        before = ids[place - 1] if place else None
        behind = ids[place + 1] if place + 1 < len(ids) else None
        others = _of_run(of.run_id) & (_T.group_key != of.group_key)
        if before is None:
            query = select(table.c.id).where(others, _T.id < min(ids)).order_by(_T.id.desc())
            before = self._first(query)
        if behind is None:
            query = select(table.c.id).where(others, _T.id > max(ids)).order_by(_T.id)
            behind = self._first(query)
        return before, behind

    def groups_beside(self, rollouts: Sequence[StoredTrajectory]) -> tuple[str | None, str | None]:
        """Return the keys of the groups before and behind a group of these rollouts, in the order
        in which the first rollouts of a run's groups were stored."""
        first = min(rollouts, key=lambda one: one.trajectory.rollout)
        firsts = _of_run(first.run_id) & (_T.rollout == first.trajectory.rollout)
        keys = [
            self._rows(select(_T.group_key).where(firsts, beside).order_by(order).limit(1))
            for beside, order in (
                (_T.id < first.id, _T.id.desc()),
                (_T.id > first.id, _T.id.asc()),
            )
        ]
        before, behind = (str(rows[0][0]) if rows else None for rows in keys)
        return before, behind

    def first_ids(self, run_id: str, number: int) -> list[int]:
        """Return the numbers of a run's first trajectories."""
        query = select(_T.id).where(_of_run(run_id)).order_by(_T.id).limit(number)
        return [int(row[0]) for row in self._rows(query)]

    def at_places(self, run_id: str, keys: Sequence[str]) -> dict[tuple[str, int], Brief]:
        """Return (group key, rollout) -> the trajectory there, for the groups of these keys."""
        query = select(schema.trajectories)
        found = self._briefs(query.where(_T.run_id == run_id, _T.group_key.in_(keys)))
        return {(brief.group_key, brief.rollout): brief for brief in found}

    def problems_of_run(self, run_id: str) -> list[Problem]:
        """Return the problems that a run has trajectories of."""
        digests = select(_T.problem).where(_T.run_id == run_id).distinct()
        query = select(schema.problems.c.problem).where(schema.problems.c.digest.in_(digests))
        return [problem_of(row[0]) for row in self._rows(query)]

    def consulted(self, ids: Sequence[int]) -> dict[int, dict[str, int]]:
        """Return trajectory -> status -> its consultations of that status."""
        c = schema.consultations.c
        query = select(c.trajectory_id, c.status, func.count()).where(c.trajectory_id.in_(ids))
        found: dict[int, dict[str, int]] = {}
        for trajectory, status, count in self._rows(query.group_by(c.trajectory_id, c.status)):
            found.setdefault(trajectory, {})[status] = count
        return found

    def is_worked_in(self, run_id: str) -> bool:
        """Return whether a process that lives has claimed groups of a run: a collection does."""
        claims = schema.claims.c
        query = select(claims.owner).where(claims.run_id == run_id).distinct()
        owners = [str(row[0]) for row in self._rows(query)]
        with guard(self.name), self._engine.connect() as connection:
            return any(is_alive(connection, owner) for owner in owners)

    def failed_attempts(self, run_id: str, group_key: str) -> list[tuple[int, str, str]]:
        """Return (rollout, when, error) of what failed in a group and was run again."""
        table = schema.failed_attempts.c
        query = select(table.rollout, table.created_at, table.error)
        query = query.where(table.run_id == run_id, table.group_key == group_key)
        return [(row[0], row[1], row[2]) for row in self._rows(query.order_by(table.id))]

    def num_run_again(self, run_id: str) -> int:
        """Return how many rollouts of a run failed at first and were run again."""
        table = schema.failed_attempts.c
        places = select(table.group_key, table.rollout).where(table.run_id == run_id).distinct()
        return int(self._first(select(func.count()).select_from(places.subquery())) or 0)

    def search(
        self, text: str, *, run_id: str | None = None, limit: int = PAGE, seconds: float = 2.0
    ) -> Found:
        """Find a text in questions, answers, turns, queries and replies, whatever its case. The
        latest trajectories come first, until there are enough hits or the time is over."""
        deadline = time.monotonic() + seconds
        of_run = [] if run_id is None else [_of_run(run_id)]
        upper = (self._first(select(func.max(_T.id)).where(*of_run)) or 0) + 1
        hits: list[Hit] = []
        searched = 0
        while upper > 0 and len(hits) <= limit and (not searched or time.monotonic() < deadline):
            lower = max(0, upper - _BLOCK)
            block = [*of_run, _T.id >= lower, _T.id < upper]
            searched += self._first(select(func.count()).where(*block)) or 0
            hits += self._hits(text, block, limit + 1 - len(hits))  # one more tells of more
            upper = lower
        return Found(hits=hits[:limit], searched=searched, whole=upper == 0 and len(hits) <= limit)

    def _hits(self, text: str, block: _Where, limit: int) -> list[Hit]:
        turns, asked, problems = schema.turns.c, schema.consultations.c, schema.problems.c
        inside = select(_T.id).where(*block)
        escaped = json.dumps(text)[1:-1]  # as the store keeps problems

        def of_trajectory(table: Any) -> Select[Any]:  # a table's columns
            return select(table.trajectory_id).where(table.trajectory_id.in_(inside))

        parts = [
            of_trajectory(turns).where(_contains(turns.text, text)),
            of_trajectory(asked).where(
                or_(_contains(asked.query, text), _contains(asked.reply, text))
            ),
            select(_T.id).where(*block, _contains(_T.answer, text)),
            select(_T.id).where(
                *block,
                _T.problem.in_(select(problems.digest).where(_contains(problems.problem, escaped))),
            ),
        ]
        ids: set[int] = set()
        for part in parts:
            latest_first = part.distinct().order_by(part.selected_columns[0].desc())
            ids |= {row[0] for row in self._rows(latest_first.limit(limit))}
        latest = sorted(ids, reverse=True)[:limit]
        query = select(schema.trajectories).where(_T.id.in_(latest)).order_by(_T.id.desc())
        return [hit_of(found, text) for found in self._read(query)]

    def _briefs(self, query: Select[Any]) -> list[Brief]:
        with guard(self.name), self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        problems = self._problems({row["problem"] for row in rows})
        return [_brief(row, problems[row["problem"]]) for row in rows]

    def _problems(self, digests: set[str]) -> dict[str, Problem]:
        table = schema.problems.c
        query = select(table.digest, table.problem).where(table.digest.in_(digests))
        return {digest: problem_of(text) for digest, text in self._rows(query)}

    def _rows(self, query: Select[Any]) -> Sequence[Any]:
        with guard(self.name), self._engine.connect() as connection:
            return connection.execute(query).all()

    def _first(self, query: Select[Any]) -> int | None:
        with guard(self.name), self._engine.connect() as connection:
            found = connection.execute(query.limit(1)).scalar_one_or_none()
        return None if found is None else int(found)


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((condition, 1), else_=0))


_SUMS: tuple[ColumnElement[Any], ...] = (
    func.count(),
    func.count(_T.reward),
    func.avg(_T.reward),
    func.min(_T.reward),
    func.max(_T.reward),
    _one_if(_T.correct.is_(True)),
    _one_if(_T.error.is_not(None)),
    _one_if(_T.role == Role.SOLO.value),
    func.min(_T.id),
    func.max(_T.id),
)


def _tally(name: str, sums: Sequence[Any], problem: Problem | None = None) -> Tally:
    num, scored, reward, lowest, highest, correct, failed, solo, first, last = sums
    return Tally(
        name=name,
        num=num,
        scored=scored,
        reward=reward,
        lowest=lowest,
        highest=highest,
        correct=correct or 0,
        failed=failed or 0,
        solo=solo or 0,
        first_id=first,
        last_id=last,
        problem=problem,
    )


def _of_run(run_id: str) -> ColumnElement[bool]:
    """Return the condition in a form that uses no index: where rows are wanted in the order of
    their numbers, or all of a run, reading the table in its order is many times faster."""
    return _T.run_id.concat("") == run_id


def _where(wanted: Wanted) -> _Where:
    found: list[ColumnElement[bool]] = []
    if wanted.run_id is not None:
        found.append(_of_run(wanted.run_id))
    if wanted.step is not None:
        found.append(_T.global_step == wanted.step)
    if wanted.group_key is not None:
        found.append(_T.group_key == wanted.group_key)
    if wanted.role:
        found.append(_T.role == wanted.role)
    if wanted.before is not None:
        found.append(_T.id < wanted.before)
    if wanted.asked:
        asked = select(schema.consultations.c.slot)
        found.append(asked.where(schema.consultations.c.trajectory_id == _T.id).exists())
    by_verdict = {
        "right": _T.correct.is_(True),
        "wrong": _T.correct.is_(False),
        "unscored": _T.reward.is_(None) & _T.error.is_(None),
        "failed": _T.error.is_not(None),
    }
    return [*found, *([by_verdict[wanted.verdict]] if wanted.verdict in by_verdict else [])]


def _contains(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return func.lower(column).contains(text.lower(), autoescape=True)


def _brief(row: RowMapping, problem: Problem) -> Brief:
    names = [name for name in Brief.__dataclass_fields__ if name != "problem"]
    return Brief(**{name: row[name] for name in names}, problem=problem)
