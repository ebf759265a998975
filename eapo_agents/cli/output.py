"""Text from models, experts and files, made safe for a terminal."""

from __future__ import annotations


def safe_text(text: str) -> str:
    """Without control characters: model text must not move the cursor, colour the screen or ring
    bells."""
    kept = (c if c in "\n\t" or c.isprintable() else "\ufffd" for c in text)
    return "".join(kept)
