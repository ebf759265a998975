"""Open a store's database, or refuse it in one sentence and leave it as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

import eapo_agents
from eapo_agents.errors import StoreError
from eapo_agents.store import schema
from eapo_agents.types import FORMAT_VERSION
from eapo_agents.write_ahead import use_write_ahead_log

_MAGIC = b"SQLite format 3\x00"
_BUSY_TIMEOUT_MS = 60_000
_LOOKING_TIMEOUT_MS = 2_000
_CREATING = 0x6561706F
"""Name of the lock under which tables are made."""


def open_engine(at: str | Path, *, create: bool) -> tuple[Engine, str]:
    """Return the database's engine and its name for messages (without a password).

    Raises:
        StoreError: missing, not a store, unreadable, or of another format.
    """
    engine, name = connect(at, create=create)
    try:
        with guard(name):
            _check_format(engine, name, create=create)
    except StoreError:
        engine.dispose()  # or SQLite's journal would stay beside a file that was refused
        raise
    return engine, name


def open_to_read(at: str | Path) -> tuple[Engine, str]:
    """Return the same of a store that is only looked at: nothing is written, whoever else works in
    it, and each connection is closed after its use.

    In this engine `lower` knows every script, where SQLite's own knows ASCII.

    Raises:
        StoreError: missing, not a store, unreadable, or of another format.
    """
    engine, name = _engine_at(str(at))
    if engine.dialect.name == "postgresql":
        url = engine.url
        engine.dispose()
        engine = create_engine(url, execution_options={"postgresql_readonly": True})
    elif engine.dialect.name == "sqlite":
        file = Path(engine.url.database or "")
        _check_file(file, name, create=False)
        engine = create_engine("sqlite://", creator=lambda: read_only(file), poolclass=NullPool)
    with guard(name):
        refuse_other_format(read_format(engine, name), name)
    return engine, name


def read_only(file: Path) -> sqlite3.Connection:
    """Return a connection to an SQLite file that cannot write.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    # without a log beside it nobody writes, and SQLite need not make files of its own to look
    quiet = not file.with_name(f"{file.name}-wal").exists()
    uri = f"{file.absolute().as_uri()}?mode=ro{'&immutable=1' if quiet else ''}"
    connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout={_LOOKING_TIMEOUT_MS}")
    connection.create_function("lower", 1, _lower, deterministic=True)
    return connection


def _lower(value: str | bytes | float | None) -> str | bytes | float | None:
    return value.lower() if isinstance(value, str) else value


def connect(at: str | Path, *, create: bool) -> tuple[Engine, str]:
    """The same, of whatever format. With `create` a missing file is no error."""
    engine, name = _engine_at(str(at))
    if engine.dialect.name not in ("sqlite", "postgresql"):
        raise StoreError(
            f"The store '{name}' is on {engine.dialect.name}: use an SQLite file or a PostgreSQL "
            "URL."
        )
    if engine.dialect.name == "sqlite":
        _check_file(Path(engine.url.database or ""), name, create=create)
        _set_up_sqlite(engine)
    return engine, name


def _engine_at(at: str) -> tuple[Engine, str]:
    if "://" not in at:
        return create_engine(f"sqlite:///{at}"), at
    name = at
    try:
        url = make_url(at)
        name = url.render_as_string(hide_password=True)
        return create_engine(url), name
    except ArgumentError as error:
        raise StoreError(
            "The store's URL cannot be read: give a file, or sqlite:///FILE, or "
            "postgresql+DRIVER://..."
        ) from error
    except ImportError as error:
        raise StoreError(
            f"The store '{name}' needs a driver that is not installed ({error.name}): install it, "
            "for example psycopg for postgresql+psycopg://."
        ) from error


@contextmanager
def guard(name: str) -> Iterator[None]:
    """Raise the database's errors as one sentence of ours."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        first = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise StoreError(
            f"The store '{name}' cannot be used ({first}): check that it is readable, writable "
            "and not full."
        ) from error


def _check_file(file: Path, name: str, *, create: bool) -> None:
    if file.is_dir():
        raise StoreError(f"The store '{name}' is a folder: give a file.")
    if not file.exists():
        if not create:
            raise StoreError(
                f"There is no store '{name}': give an existing file, or make one with `eapo "
                "collect --store`."
            )
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"The store '{name}' cannot be made: {error.strerror}.") from error
        return
    try:
        with file.open("rb") as opened:
            head = opened.read(len(_MAGIC))
    except OSError as error:
        raise StoreError(f"The store '{name}' cannot be read: {error.strerror}.") from error
    if head and head != _MAGIC:  # an empty file is a store that nobody has written to yet
        raise StoreError(
            f"'{name}' is not a trace store: it is not an SQLite file; give another file."
        )


def _set_up_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def on_connect(connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say, DDL included
        connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def refuse_other_format(found: int | None, name: str) -> None:
    """Raise StoreError for a store that this version does not read."""
    if found is None:
        raise StoreError(
            f"'{name}' is empty and not a trace store yet: make one with `eapo collect --store`."
        )
    if found != FORMAT_VERSION:
        older = found < FORMAT_VERSION
        raise StoreError(
            f"The store '{name}' has format {found}, and eapo {eapo_agents.__version__} reads "
            f"format {FORMAT_VERSION}: "
            + (f"convert it with `eapo traces convert {name} NEW`." if older else "update eapo.")
        )


def _check_format(engine: Engine, name: str, *, create: bool) -> None:
    found = read_format(engine, name)
    if found is None and create:
        _create(engine)
        found = read_format(engine, name)
    refuse_other_format(found, name)
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            use_write_ahead_log(driver, _BUSY_TIMEOUT_MS / 1000)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that writes, and commit it at the end of the block."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def read_format(engine: Engine, name: str) -> int | None:
    """Return the format of an existing store, None where there is no table at all."""
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return None
        if schema.meta.name not in tables:
            if engine.dialect.name == "sqlite":
                raise StoreError(
                    f"'{name}' is the database of something else: it has no table "
                    f"{schema.meta.name}; "
                    "give another file."
                )
            return None  # a PostgreSQL database may be shared
        value = connection.execute(
            select(schema.meta.c.value).where(schema.meta.c.key == "format")
        ).scalar()
    if value is None or not value.isdigit():
        raise StoreError(f"'{name}' does not say its format: it is damaged; restore a copy.")
    return int(value)


def make_table(connection: Connection, table: Table) -> None:
    """Make one of the tables that stores of before do not have, where it is missing."""
    if inspect(connection).has_table(table.name):
        return
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
    table.create(connection, checkfirst=True)


def _create(engine: Engine) -> None:
    """All tables in one transaction: a store is there whole or not at all."""
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":  # two that create at once would collide
            connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
        if schema.meta.name in inspect(connection).get_table_names():
            return  # another process was faster
        schema.metadata.create_all(connection)
        connection.execute(
            schema.meta.insert(),
            [
                {"key": "format", "value": str(FORMAT_VERSION)},
                {"key": "package_version", "value": eapo_agents.__version__},
            ],
        )
