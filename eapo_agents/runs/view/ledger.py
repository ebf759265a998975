"""The experts' ledger of a run, read without writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import StoreError
from eapo_agents.experts.call_store import LedgerRow
from eapo_agents.store.opening import read_only

if TYPE_CHECKING:
    from eapo_agents.experts.costs import CostSummary

_MOST_ROWS = 200_000
CALLS_OF_A_PAGE = 100
_COLUMNS = (
    "expert, status, cached, attempts, prompt_tokens, completion_tokens, cost_usd, latency_s, error"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerCall:
    """One expert's part in one query."""

    at: str
    run_id: str
    problem_id: str
    step: int
    rollout: int
    row: LedgerRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """What experts have cost."""

    experts: Sequence[CostSummary]
    num_rows: int
    counted: int
    """Rows that the sums are over: the latest."""
    num_replies: int
    """Stored replies."""
    calls: Sequence[LedgerCall]
    """The latest."""


def read_ledger(file: Path, *, expert: str = "", status: str = "") -> Ledger:
    """Return a ledger's sums, and its latest calls.

    Args:
        expert: only this one's calls are listed.
        status: only calls that ended so are listed.

    Raises:
        StoreError: it cannot be read.
    """
    from eapo_agents.experts.costs import costs

    try:
        with closing(read_only(file)) as db:
            (num_rows,) = db.execute("SELECT count(*) FROM calls").fetchone()
            (num_replies,) = db.execute("SELECT count(*) FROM replies").fetchone()
            rows = db.execute(
                f"SELECT global_step, {_COLUMNS} FROM calls ORDER BY id DESC LIMIT {_MOST_ROWS}"
            ).fetchall()
            where, values = [], []
            for column, wanted in (("expert", expert), ("status", status)):
                if wanted:
                    where.append(f"{column} = ?")
                    values.append(wanted)
            only = f"WHERE {' AND '.join(where)}" if where else ""
            latest = db.execute(
                f"SELECT at, run_id, problem_id, global_step, rollout, {_COLUMNS} FROM calls "
                f"{only} ORDER BY id DESC LIMIT {CALLS_OF_A_PAGE}",
                values,
            ).fetchall()
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"The expert ledger '{file}' cannot be read ({error}).") from error
    counted = costs((step, _row(values)) for step, *values in rows)
    return Ledger(
        experts=[line.summary() for line in counted],
        num_rows=num_rows,
        counted=len(rows),
        num_replies=num_replies,
        calls=[
            LedgerCall(
                at=at, run_id=run, problem_id=problem, step=step, rollout=rollout, row=_row(found)
            )
            for at, run, problem, step, rollout, *found in latest
        ],
    )


def _row(values: Sequence[object]) -> LedgerRow:
    names = _COLUMNS.split(", ")
    facts = dict(zip(names, values, strict=True))
    return LedgerRow(**{**facts, "cached": bool(facts["cached"])})  # type: ignore[arg-type]  # as SQLite has it
