"""Whether a run is still running."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from eapo_agents.runs.lock import LOCK

_LOCKS = Path("/proc/locks")
_RECENT_S = 120.0
"""Where the system does not tell who holds a lock: a run that wrote within this time runs."""
_PARENTS = 5
"""A study holds the lock for its arms, a demo for its phases, a table for its studies' arms."""


class State(StrEnum):
    """What has become of a run."""

    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"


def state_of(folder: Path, *, is_finished: bool) -> State:
    """Return the state of a run's folder. Nothing is locked to find out: a command that begins in
    that moment would be refused."""
    if is_finished:
        return State.FINISHED
    return State.RUNNING if _is_worked_in(folder) else State.INTERRUPTED


def _is_worked_in(folder: Path) -> bool:
    held = _held()
    if held is None:
        return _changed_lately(folder)
    for place in [folder, *list(folder.absolute().parents)[:_PARENTS]]:
        try:
            if (place / LOCK).stat().st_ino in held:
                return True
        except OSError:
            continue
    return False


def _held() -> set[int] | None:
    """Return the inodes of all locked files; None where the system does not list them."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    found = set()
    for line in lines:
        words = line.split()
        # such as: 1: FLOCK ADVISORY WRITE 6678 fe:00:2328957 0 EOF
        if len(words) >= 6 and words[1] == "FLOCK" and words[3] == "WRITE":
            found.add(int(words[5].rpartition(":")[2]))
    return found


def _changed_lately(folder: Path) -> bool:
    try:
        latest = max((file.stat().st_mtime for file in folder.iterdir()), default=0.0)
    except OSError:
        return False
    return time.time() - latest < _RECENT_S
