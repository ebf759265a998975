"""What commands print: text made safe for a terminal, results for people and programs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from eapo_agents.progress import IS_MAIN
from eapo_agents.secrets import redact


def safe_text(text: str) -> str:
    """Return a text without keys and without control characters: model text must not move the
    cursor, colour the screen or ring bells."""
    kept = (c if c in "\n\t" or c.isprintable() else "\ufffd" for c in redact(text))
    return "".join(kept)


def show(result: Mapping[str, object], *, as_json: bool) -> None:
    """Print a command's result: one JSON object, or a line for each of its facts."""
    if not IS_MAIN:
        return
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for key, value in result.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{key:24} {safe_text(text)}")
