"""Files: the cache folder, and writing without half-written files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Return the folder EAPO_CACHE, else one in the user's cache folder. It may not exist yet."""
    if folder := os.environ.get("EAPO_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eapo-agents"


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old file or the whole new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)


@contextmanager
def whole_folder(folder: Path, *, first_stays: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill, and put it in the place of this one when it is whole. What a
    killed process had begun is removed.

    Args:
        first_stays: where another process has made the folder meanwhile, keep that one.

    Raises:
        OSError: the folder cannot be written, or is there and holds something.
    """
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        found = re.search(r"\.(\d+)\.tmp$", left.name)
        if found and not _is_alive(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        yield unfinished
        try:
            unfinished.rename(folder)
        except OSError:
            if not (first_stays and folder.is_dir()):
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))
