"""Finds runs, evaluations and trace stores below folders."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from eapo_agents.errors import UsageError
from eapo_agents.runs.folder import EVALS, EXPERTS, RECIPE, RESULT, STEPS, TRACES

_DEPTH = 6
"""Folders below a given one."""
_MOST_FOLDERS = 20_000
_SKIPPED = ("checkpoint-", "policy", "fresh", "node_modules", "site-packages", "__pycache__")
_MAGIC = b"SQLite format 3\x00"
EVALUATED = "run.json"
"""What an evaluation's folder holds."""
STUDY, PHASES = "study.json", "phases.json"


class Kind(StrEnum):
    """What a place holds."""

    TRAINING = "training"
    EVALUATION = "evaluation"
    STUDY = "study"
    DEMO = "demo"
    STORE = "traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A run's folder, or a trace store."""

    key: str
    """Its name in addresses: its path, from the folder that was given on."""
    kind: Kind
    folder: Path | None
    """None for a store that is not a run's."""
    store: str | None
    """Its trace store: a file or a URL."""

    @property
    def ledger(self) -> Path | None:
        """Return the experts' ledger beside it; None where there is none."""
        beside = self.folder
        if beside is None and self.store is not None and self.is_file:
            beside = Path(self.store).parent
        file = beside / EXPERTS if beside is not None else None
        return file if file is not None and file.is_file() else None

    @property
    def is_file(self) -> bool:
        """Return whether its store is a file."""
        return self.store is not None and "://" not in self.store


def find_places(roots: Sequence[str], *, all_there: bool = True) -> dict[str, Place]:
    """Return what the folders, files and URLs hold, by key, in the order of their names.

    Args:
        all_there: refuse a root that is not there; it may go away later.

    Raises:
        UsageError: one of them is not there.
    """
    found: dict[str, Place] = {}
    taken: set[str] = set()
    for root in roots:
        if "://" in root:
            places = [_server(root)]
        else:
            path = Path(root)
            if not path.exists():
                if not all_there:
                    _free(_base_name(path), taken)
                    continue
                raise UsageError(
                    f"There is no '{root}': give folders of runs, studies or evaluations, or trace "
                    "stores."
                )
            places = list(_below(path, _free(_base_name(path), taken)))
        found |= {place.key: place for place in places}
    return found


def _base_name(path: Path) -> str:
    resolved = path.resolve()
    return _utf8(resolved.name or "root")


def _free(name: str, taken: set[str]) -> str:
    """Return a name for a root that no other has."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}~{number}"
    taken.add(free)
    return free


def _server(url: str) -> Place:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        key = make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise UsageError(
            "A store's URL cannot be read: give sqlite:///FILE or postgresql+DRIVER://..."
        ) from error
    return Place(key=key, kind=Kind.STORE, folder=None, store=url)


def _below(root: Path, name: str) -> Iterator[Place]:
    if root.is_file():
        yield Place(key=name, kind=Kind.STORE, folder=None, store=str(root))
        return
    num_seen = 0
    todo = [(root, name, 0)]
    while todo and num_seen < _MOST_FOLDERS:
        folder, key, depth = todo.pop(0)
        num_seen += 1
        files, folders = _entries(folder)
        kind = _kind(files)
        if kind is not None:
            store = str(folder / TRACES) if TRACES in files else None
            yield Place(key=key, kind=kind, folder=folder, store=store)
        for file in sorted(files):
            own = kind is not None and file == TRACES
            if file.endswith(".db") and not own and is_trace_store(folder / file):
                at = str(folder / file)
                yield Place(key=f"{key}/{_utf8(file)}", kind=Kind.STORE, folder=None, store=at)
        if depth < _DEPTH:
            todo += [(folder / one, f"{key}/{_utf8(one)}", depth + 1) for one in sorted(folders)]


def _entries(folder: Path) -> tuple[set[str], list[str]]:
    """Return the names of a folder's files and of its folders that may hold runs. Links are not
    followed to folders: they may lead in a circle."""
    files: set[str] = set()
    folders: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith((".", *_SKIPPED)):
                        folders.append(entry.name)
                elif entry.is_file():
                    files.add(entry.name)
    except OSError:  # a folder of somebody else
        return set(), []
    return files, folders


def _kind(files: set[str]) -> Kind | None:
    if STUDY in files:
        return Kind.STUDY
    if PHASES in files:
        return Kind.DEMO
    if EVALUATED in files:
        return Kind.EVALUATION
    begun = RECIPE in files and TRACES in files
    if begun or files & {STEPS, RESULT, EVALS}:
        return Kind.TRAINING
    return None


def is_trace_store(file: Path) -> bool:
    """Return whether an SQLite file is a trace store."""
    try:
        status = file.stat()
    except OSError:
        return False
    return _is_trace_store(str(file), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4096)
def _is_trace_store(file: str, changed: int, size: int) -> bool:
    from eapo_agents.store.opening import read_only

    try:
        with open(file, "rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                return False
        with closing(read_only(Path(file))) as connection:
            query = "SELECT 1 FROM sqlite_master WHERE name = 'eapo_meta'"
            return connection.execute(query).fetchone() is not None
    except (OSError, sqlite3.Error):
        return False


def _utf8(name: str) -> str:
    """Return a file's name as text that can be sent: bytes that are not UTF-8 become marks."""
    return os.fsencode(name).decode("utf-8", "replace")
