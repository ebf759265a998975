"""Keys come only from the environment, and are removed from every text that is kept or shown."""

from __future__ import annotations

import os

from eapo_agents.errors import UsageError

REDACTED = "[key]"
_MIN_CHARS = 4
"""Shorter values are not keys, and removing them would garble text."""
_known: set[str] = set()


def read_key(variable: str, *, wanted_by: str) -> str:
    """Return the key in an environment variable, and remember it for `redact`.

    Raises:
        UsageError: the variable is not set.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"{wanted_by} takes its key from the environment variable {variable}, which is not "
            f"set: export {variable}=..., or name another with api_key_env."
        )
    if len(key) >= _MIN_CHARS:
        _known.add(key)
    return key


def redact(text: str) -> str:
    """Return the text without the keys that `read_key` has read."""
    for key in _known:
        if key in text:
            text = text.replace(key, REDACTED)
    return text
