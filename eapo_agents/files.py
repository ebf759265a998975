"""Files: the cache folder, and writing without half-written files."""

from __future__ import annotations

import os
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
