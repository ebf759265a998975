"""The experts' file: a ledger with one row per call or refusal, and the replies that were paid for.

A row is committed when its call ends, so that the cost is known after a crash. A reply is found by
the request that it answers: the same request later, in this run or another, costs nothing.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from eapo_agents.errors import StoreError
from eapo_agents.experts.usage import Usage
from eapo_agents.write_ahead import use_write_ahead_log

_Row: TypeAlias = tuple[Any, ...]  # what sqlite3 returns
FORMAT = 2
"""2 added the thoughts."""
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSite:
    """Where in a run a call was made."""

    problem_id: str = ""
    global_step: int = 0
    rollout: int = 0
    turn: int = 0
    slot: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One expert's part in one query."""

    expert: str
    status: str
    """A `ConsultationStatus`, or `cancelled` if nobody waited for the reply any longer."""
    cached: bool = False
    """Answered without a call: from the stored replies, or by an equal call in flight."""
    attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = 0.0
    """None if the expert has no price."""
    latency_s: float = 0.0
    error: str | None = None
    thought: str = ""
    """What the expert wrote before its answer; the policy never sees it."""


_ROW = [field.name for field in fields(LedgerRow)]
_SITE = [field.name for field in fields(CallSite)]
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, run_id TEXT NOT NULL,
    problem_id TEXT NOT NULL, global_step INTEGER NOT NULL, rollout INTEGER NOT NULL,
    turn INTEGER NOT NULL, slot INTEGER NOT NULL,
    expert TEXT NOT NULL, status TEXT NOT NULL, cached INTEGER NOT NULL,
    attempts INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost_usd REAL, latency_s REAL NOT NULL, error TEXT,
    thought TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS calls_of_run ON calls (run_id, expert, global_step);
CREATE TABLE IF NOT EXISTS replies (
    request TEXT PRIMARY KEY, at TEXT NOT NULL, text TEXT NOT NULL, usage TEXT NOT NULL);
PRAGMA user_version = {FORMAT};
"""


class CallStore:
    """The ledger and the stored replies, in a file or in memory."""

    def __init__(
        self, file: str | Path | None = None, *, create: bool = True, thoughts: bool = True
    ) -> None:
        """Open or create a file; None keeps everything in memory.

        Args:
            thoughts: whether to keep them, which may quote the question.

        Raises:
            StoreError: the file is missing (without `create`), is not a ledger, or has a newer
                format.
        """
        self.name = "memory" if file is None else str(file)
        if file is not None and not create and not Path(file).exists():
            raise StoreError(
                f"There is no expert ledger '{file}': `eapo collect`, `train`, `run` and `chat` "
                "write one, experts.db, beside their traces."
            )
        self._thoughts = thoughts
        self._lock = threading.Lock()
        try:
            if file is not None:
                Path(file).parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                ":memory:" if file is None else str(file),
                timeout=_BUSY_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"The expert ledger '{file}' cannot be opened: {error}.") from error

    def _prepare(self) -> None:
        """Create the tables of a new file; several processes may do so at once."""
        with self._transaction():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version > FORMAT or (tables and not version):
                raise StoreError(
                    f"'{self.name}' is not an expert ledger of format {FORMAT} (it says "
                    f"{version}): give another file, or update eapo-agents."
                )
            if version == 1:
                self._db.execute("ALTER TABLE calls ADD COLUMN thought TEXT NOT NULL DEFAULT ''")
            for statement in _SCHEMA.split(";") if version < FORMAT else ():
                self._db.execute(statement)
        use_write_ahead_log(self._db, _BUSY_S)
        self._db.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def reply(self, request: str) -> tuple[str, Usage] | None:
        """Return the stored reply to a request, which `request_key` named."""
        found = self._execute("SELECT text, usage FROM replies WHERE request = ?", (request,))
        return (found[0][0], Usage(**json.loads(found[0][1]))) if found else None

    def record(
        self,
        run_id: str,
        site: CallSite,
        row: LedgerRow,
        reply: tuple[str, str, Usage] | None = None,
    ) -> None:
        """Add a row to the ledger and, in the same transaction, store a new reply: (request,
        text, usage)."""
        row = row if self._thoughts else replace(row, thought="")
        columns = ["at", "run_id", *_SITE, *_ROW]
        marks = ", ".join("?" * len(columns))
        insert = f"INSERT INTO calls ({', '.join(columns)}) VALUES ({marks})"
        values = (_now(), run_id, *astuple(site), *astuple(row))
        if reply is None:
            self._execute(insert, values)
            return
        request, text, usage = reply
        kept = (request, _now(), text, json.dumps(asdict(replace(usage, thought=""))))
        with self._guarded(), self._transaction():
            self._db.execute(insert, values)
            self._db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", kept)

    def spent(self, *run_ids: str) -> tuple[int, int, float]:
        """Return the calls, tokens and US dollars that runs have cost so far."""
        marks = ", ".join("?" * len(run_ids))
        ((calls, tokens, usd),) = self._execute(
            "SELECT count(*), coalesce(sum(prompt_tokens + completion_tokens), 0), "
            f"coalesce(sum(cost_usd), 0) FROM calls WHERE run_id IN ({marks}) AND attempts > 0",
            run_ids,
        )
        return calls, tokens, usd

    def runs(self) -> list[str]:
        """Return the runs in the ledger, the oldest first."""
        return [
            run for (run,) in self._execute("SELECT run_id FROM calls GROUP BY 1 ORDER BY min(id)")
        ]

    def rows(self, run_id: str | None = None) -> list[tuple[int, LedgerRow]]:
        """Return (global step, row) of one run or of all, in the order of time."""
        where, values = ("WHERE run_id = ?", (run_id,)) if run_id is not None else ("", ())
        found = self._execute(
            f"SELECT global_step, {', '.join(_ROW)} FROM calls {where} ORDER BY id", values
        )
        return [
            (step, LedgerRow(**{**dict(zip(_ROW, row, strict=True)), "cached": bool(row[2])}))
            for step, *row in found
        ]

    def _execute(self, sql: str, values: tuple[object, ...] = ()) -> list[_Row]:
        with self._guarded():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite ends it by itself where the disk is full
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise StoreError(
                f"The expert ledger '{self.name}' cannot be used: {error}. Is the disk full, or "
                "the file damaged or open elsewhere?"
            ) from error


def request_key(identity: Mapping[str, object], arguments: Mapping[str, object]) -> str:
    """Return the name of a request: a digest of the expert's settings and the query."""
    text = json.dumps([identity, arguments], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
