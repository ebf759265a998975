"""Control groups for samples, where this user can make some: all memory and all threads of a
sample are counted there, whatever it does.

Without them the limits of `inside/limits.py` hold alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "eapo-sandbox"
_FILES: Mapping[str, tuple[str, str]] = {
    "pids": ("pids.max", "pids.max"),
    "memory": ("memory.max", "memory.limit_in_bytes"),
}
"""Controller -> the file of its limit, in version 2 and in version 1."""
_numbers = itertools.count()
_left: list[Path] = []
"""Folders that could not be removed yet."""


@dataclass(frozen=True, slots=True)
class Group:
    """The folders of one sample's group, one for each hierarchy."""

    folders: tuple[Path, ...]

    def entering(self, command: list[str]) -> list[str]:
        """Return a command that enters the group, and then becomes `command`."""
        enter = "".join(f"echo 0 > '{f}/cgroup.procs'; " for f in self.folders)
        return ["/bin/sh", "-c", f'{{ {enter}}} 2>/dev/null; exec "$@"', "sh", *command]

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        _left.extend(self.folders)
        for folder in list(_left):
            try:
                folder.rmdir()
            except OSError:  # an ended process may still be on its way out: the next time
                continue
            with contextlib.suppress(ValueError):  # another thread was first
                _left.remove(folder)


def make_group(limits: Mapping[str, int]) -> Group | None:
    """Make a group with limits of `pids` and `memory` (bytes); None where that is not possible."""
    folders: list[Path] = []
    name = f"{_PREFIX}-{os.getpid()}-{next(_numbers)}"
    for controller, limit in limits.items():
        parent, version = _parents().get(controller, (None, 0))
        if parent is None:
            continue
        folder = parent / name
        try:
            folder.mkdir(exist_ok=True)
            (folder / _FILES[controller][version == 1]).write_text(str(limit))
        except OSError:
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        if folder not in folders:
            folders.append(folder)
    return Group(tuple(folders)) if folders else None


def _parents() -> dict[str, tuple[Path, int]]:
    """Return controller -> (folder of this process, version)."""
    global _found
    if _found is None:
        _found = {}
        for line in _lines():
            _, controllers, path = line.split(":", 2)
            for name in controllers.split(",") if controllers else _FILES:
                folder = (
                    _ROOT / name / path.lstrip("/") if controllers else _ROOT / path.lstrip("/")
                )
                if name in _FILES and _can_make(folder, name, 1 if controllers else 2):
                    _found[name] = folder, 1 if controllers else 2
        for folder, _ in _found.values():
            _sweep(folder)
    return _found


_found: dict[str, tuple[Path, int]] | None = None


def _lines() -> list[str]:
    try:
        return Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []


def _can_make(folder: Path, controller: str, version: int) -> bool:
    probe = folder / f"{_PREFIX}-{os.getpid()}-probe"
    try:
        probe.mkdir()
    except OSError:
        return False
    usable = (probe / _FILES[controller][version == 1]).exists()
    probe.rmdir()
    return usable


def _sweep(folder: Path) -> None:
    """Remove the groups of processes that were killed."""
    for left in folder.glob(f"{_PREFIX}-*"):
        owner = left.name.split("-")[2]
        if not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                left.rmdir()
