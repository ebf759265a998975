"""Keys come only from the environment, and are removed from every text that is kept or shown.

A key is found as it is, percent-encoded, with JSON's escapes, in hexadecimal and in base64 (at each
of the three places in a group where it can begin), whole texts and streams alike.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from urllib.parse import quote

from eapo_agents.errors import UsageError

REDACTED = "[key]"
_MIN_CHARS = 4
"""Shorter values are not keys, and removing them would garble text."""
_MIN_CHARS_IN_BASE64 = 8
"""The base64 of a shorter key is short enough to occur by chance."""
_Form = tuple[frozenset[str], ...]
"""The ways to write each character, one after the other."""
_known: dict[str, tuple[tuple[_Form, ...], re.Pattern[str]]] = {}


def read_key(variable: str, *, wanted_by: str) -> str:
    """Return the key in an environment variable, and remember it for `redact`.

    Raises:
        UsageError: the variable is not set.
    """
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(
            f"{wanted_by} takes its key from the environment variable {variable}, which is not "
            f"set: export {variable}=..., or name another variable."
        )
    if len(key) >= _MIN_CHARS and key not in _known:
        forms = _forms(key)
        _known[key] = forms, re.compile("|".join(map(_pattern, forms)))
    return key


def redact(text: str) -> str:
    """Return the text without the keys that `read_key` has read."""
    for _, pattern in _longest_first():
        text = pattern.sub(REDACTED, text)
    return text


def _longest_first() -> list[tuple[tuple[_Form, ...], re.Pattern[str]]]:
    """Return what is known of the keys; one of them may begin another."""
    return [_known[key] for key in sorted(_known, key=lambda key: (-len(key), key))]


class RedactedStream:
    """Passes on text that comes in pieces, without keys.

    The end of what came waits as long as it may be the beginning of a key.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._waiting = ""

    def __call__(self, piece: str) -> None:
        """Take the next piece."""
        text = self._waiting + piece
        end = _first_open(text)
        for _, pattern in _longest_first():  # a whole key's own end may begin another one
            end = min([end, *(m.start() for m in pattern.finditer(text) if m.end() > end)])
        self._waiting = text[end:]
        if end:
            self._tell(redact(text[:end]))

    def end(self) -> None:
        """Pass on what waits: nothing follows."""
        text, self._waiting = self._waiting, ""
        if text:
            self._tell(redact(text))


def _forms(key: str) -> tuple[_Form, ...]:
    data = key.encode("utf-8", "surrogateescape")
    forms: list[_Form] = [tuple(_spellings(character) for character in key)]
    for hexadecimal in (data.hex(), data.hex().upper()):
        forms.append(tuple(frozenset({c}) for c in hexadecimal))
    if len(key) >= _MIN_CHARS_IN_BASE64:
        for offset in range(3):
            core = _base64_core(data, offset)
            forms.append(tuple(frozenset({c}) | _URL_SAFE.get(c, frozenset()) for c in core))
    return tuple(forms)


_URL_SAFE = {
    "+": frozenset({"-", "%2B", "%2b", "\\u002b", "\\u002B"}),
    "/": frozenset({"_", "\\/", "%2F", "%2f", "\\u002f", "\\u002F"}),
}


def _spellings(character: str) -> frozenset[str]:
    """Return a character as it is, percent-encoded, and as JSON may write it."""
    data = character.encode("utf-8", "surrogateescape")
    units = character.encode("utf-16-be", "surrogatepass").hex()
    escapes = [units[i : i + 4] for i in range(0, len(units), 4)]
    found = {character, quote(character, safe="", errors="surrogateescape")}
    for case in (str.lower, str.upper):
        found.add("".join(f"%{case(format(byte, '02x'))}" for byte in data))
        found.add("".join(f"\\u{case(escape)}" for escape in escapes))
    if character in '"\\/':
        found.add(f"\\{character}")
    return frozenset(found)


def _base64_core(data: bytes, offset: int) -> str:
    """Return the characters of base64 that this key alone decides, `offset` bytes into a group."""
    text = base64.b64encode(b"\0" * offset + data).decode().rstrip("=")
    first = -(-offset * 8 // 6)
    return text[first : (offset + len(data)) * 8 // 6]


def _pattern(form: _Form) -> str:
    # the longest first: a backslash begins its own escape
    return "".join(
        "(?:" + "|".join(re.escape(s) for s in sorted(ways, key=lambda s: (-len(s), s))) + ")"
        for ways in form
    )


def _first_open(text: str) -> int:
    """Return where the text may begin a form of a key that its end breaks off, else its length."""
    forms = [form for found, _ in _longest_first() for form in found]
    longest = max((sum(max(map(len, ways)) for ways in form) for form in forms), default=0)
    for start in range(max(0, len(text) - longest), len(text)):
        if any(_is_open(text, start, form) for form in forms):
            return start
    return len(text)


def _is_open(text: str, start: int, form: _Form) -> bool:
    places = {start}
    for ways in form:
        if len(text) in places:
            return True
        following = set()
        for place in places:
            for spelling in ways:
                if text.startswith(spelling, place):
                    following.add(place + len(spelling))
                elif spelling.startswith(text[place:]):
                    return True
        if not following:
            return False
        places = following
    return False
