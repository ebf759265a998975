"""Files: where what can be worked out again is kept, and how they are written."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder EAPO_CACHE, else one in the user's cache folder. It may not exist yet."""
    if folder := os.environ.get("EAPO_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eapo-agents"


def write_atomically(file: Path, text: str) -> None:
    """Either the old file or the whole new one, whatever happens in between."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
