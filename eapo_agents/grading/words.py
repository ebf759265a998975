"""Words around a value: units, which may be left out, and words that change what is said."""

from __future__ import annotations

import re

_UNITS = {
    "cm": "centimeter centimetre",
    "mm": "millimeter millimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "h": "hr hour",
    "min": "minute",
    "s": "sec second",
    "kg": "kilogram",
    "g": "gram",
    "lb": "pound",
    "degree": "deg",
    "dollar": "usd",
    "cent": "cents",
    "ml": "milliliter millilitre",
    "l": "liter litre",
    "percent": "percentage",
}
_CANONICAL = {other: unit for unit, others in _UNITS.items() for other in others.split()}
_FILLER = {"square", "cubic", "sq", "cu", "per", "the", "a", "of", "units", "unit", "and"}
_TELLING = re.compile(
    r"\b(?:a\.?\s?m|p\.?\s?m|or|more|fewer|less|least|most|than|not|no|except|mod|modulo|base|if|when"
    r"|remainder|bc|bce|ad|ce|north|south|east|west|above|below|left|right|up|down|gain|loss|profit"
    r"|before|after|ago|later|positive|negative|clockwise|counterclockwise|hundred|thousand|million"
    r"|billion|trillion|dozen|half|halves|thirds?|quarters?|squared|cubed|times|radians?|pi|to|plus|minus"
    r"|between|about|approximately|nearly|all|none|only|infinite|every|each|either|both|with|without)\b",
    re.IGNORECASE,
)


def tells(words: str) -> bool:
    """Return whether the words change what a value says, such as `a.m.` or `or more`."""
    return bool(_TELLING.search(words))


def same_words(given: str, wanted: str) -> bool:
    """Return whether two pieces of text around the same value say the same."""
    if not given.strip() or not wanted.strip():
        return not tells(given + " " + wanted)
    if tells(given) or tells(wanted):
        return _letters(given) == _letters(wanted)
    one, other = _units(given), _units(wanted)
    return one <= other or other <= one


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9<>=+-]", "", text.lower())


_SPEEDS = {"mph": "mile hour", "kph": "kilometer hour", "kmph": "kilometer hour"}


def _units(text: str) -> frozenset[str]:
    text = re.sub(r"\b(?:mph|km?ph)\b", lambda m: _SPEEDS[m[0]], text.lower())
    words = re.findall(r"[a-z]+", text.lower())
    found = (
        _CANONICAL.get(w) or _CANONICAL.get(w.rstrip("s")) or (w.rstrip("s") or w) for w in words
    )
    return frozenset(w for w in found if w not in _FILLER)
