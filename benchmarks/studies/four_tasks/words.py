"""Invented names, so that nothing can be known of them beforehand."""

from __future__ import annotations

import random

_SYLLABLES = [a + b for a in "bdfklmnprst" for b in "aeiou"]


def names(number: int, seed: str, syllables: int = 3) -> list[str]:
    """Return different names, always the same for a seed."""
    draw, found = random.Random(seed), dict[str, None]()
    while len(found) < number:
        found["".join(draw.choice(_SYLLABLES) for _ in range(syllables)).capitalize()] = None
    return list(found)
