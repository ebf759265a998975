"""Many connections that switch one new SQLite file to its write-ahead log at once."""

import sqlite3
import threading

import pytest

from eapo_agents.write_ahead import use_write_ahead_log


def test_all_get_there_however_many_try_at_once(tmp_path):
    for attempt in range(60):  # without trying again about one of forty fails
        file = tmp_path / f"{attempt}.db"
        made = sqlite3.connect(file, isolation_level=None)
        made.execute("CREATE TABLE t (x)")
        made.close()
        everybody, modes = threading.Barrier(4), []

        def switch(file=file, everybody=everybody, modes=modes):
            connection = sqlite3.connect(file, isolation_level=None)
            connection.execute("SELECT * FROM t").fetchall()
            everybody.wait()
            use_write_ahead_log(connection, patience_s=30)
            modes.append(connection.execute("PRAGMA journal_mode").fetchone()[0])
            connection.close()

        threads = [threading.Thread(target=switch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert modes == ["wal"] * 4


def test_a_file_that_stays_locked_or_is_none_is_said_to_be_so(tmp_path):
    held = sqlite3.connect(tmp_path / "held.db", isolation_level=None)
    held.execute("CREATE TABLE t (x)")
    held.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_write_ahead_log(sqlite3.connect(tmp_path / "held.db", timeout=0.01), patience_s=0.1)
    (tmp_path / "text.db").write_text("no database, but rather a good many words")
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        use_write_ahead_log(sqlite3.connect(tmp_path / "text.db"), patience_s=30)
