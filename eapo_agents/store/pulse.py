"""Tells whether a process that has claimed work still lives.

On the same machine its process number and start time say so. Of another machine's processes only
the database knows: each writes there every few seconds that it lives, by the database's own clock.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress

from sqlalchemy import Cast, Connection, Engine, Float, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from eapo_agents.store import schema

PULSE_S = 5.0
SILENT_S = 60.0
"""A process of another machine that has said nothing for so long is dead."""


class Pulse:
    """A thread that says, in a PostgreSQL store, that this process lives."""

    def __init__(self, engine: Engine, owner: str) -> None:
        """The first beat is there before this returns."""
        self._engine = engine
        self._owner = owner
        self._stopped = threading.Event()
        self._beat()
        threading.Thread(target=self._run, name="eapo-pulse", daemon=True).start()

    def stop(self) -> None:
        """No beat comes after this."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(PULSE_S):
            with suppress(SQLAlchemyError):  # the next beat may come through
                self._beat()

    def _beat(self) -> None:
        row = insert(schema.processes).values(owner=self._owner, seen_at=_now())
        with self._engine.begin() as connection:
            connection.execute(
                row.on_conflict_do_update(
                    index_elements=["owner"], set_={"seen_at": row.excluded.seen_at}
                )
            )


def is_alive(connection: Connection, owner: str) -> bool:
    """Whether a claim's process still runs; one of another machine is taken to where nothing tells
    otherwise."""
    host, pid, started = owner.rsplit(":", 2)
    if host == socket.gethostname():
        return _start_time(int(pid)) == started
    if connection.dialect.name != "postgresql":
        return True
    processes = schema.processes.c
    silent_s = select(_now() - processes.seen_at).where(processes.owner == owner)
    found = connection.execute(silent_s).scalar()
    return found is None or bool(found < SILENT_S)


def this_process() -> str:
    """host:pid:start time: names this process and no other, even where process numbers come round
    again."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_time(os.getpid())}"


def _now() -> Cast[float]:
    """Seconds, by the database's clock."""
    return cast(func.extract("epoch", func.clock_timestamp()), Float)


def _start_time(pid: int) -> str | None:
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None
