"""SQLite's write-ahead log, in which readers do not wait for the writer."""

from __future__ import annotations

import sqlite3
import time

_PAUSE_S = 0.02


def use_write_ahead_log(connection: sqlite3.Connection, patience_s: float) -> None:
    """Switch the database to the write-ahead log, unless it uses it already.

    If several processes switch a new file at once, SQLite reports a lock to some of them without
    waiting for `busy_timeout`. So this tries again for `patience_s` seconds.

    Raises:
        sqlite3.OperationalError: the file is still locked, or cannot be written.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            locked = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not locked or time.monotonic() > deadline:
                raise
        time.sleep(_PAUSE_S)
