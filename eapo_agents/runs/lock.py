"""One process at a time works in a run's folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eapo_agents.errors import UsageError
from eapo_agents.progress import IS_MAIN

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder, which is made where it is missing. A lock ends with its process, killed
    or not.

    Raises:
        UsageError: another process works in it.
    """
    if not IS_MAIN:  # the other training processes of the one that holds it
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"Another process works in '{folder}': wait for it to end, or give another --out."
            ) from error
        yield
