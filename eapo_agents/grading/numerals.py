"""Whole numbers in Chinese numerals."""

from __future__ import annotations

_DIGITS = {
    **{c: n for n, c in enumerate("\u96f6\u4e00\u4e8c\u4e09\u56db\u4e94\u516d\u4e03\u516b\u4e5d")},
    **{"\u3007": 0, "\u4e24": 2, "\u5169": 2},
}
_TENS = {"\u5341": 10, "\u767e": 100, "\u5343": 1000}
_MYRIADS = {"\u4e07": 10**4, "\u842c": 10**4, "\u4ebf": 10**8, "\u5104": 10**8}
_MINUS = "\u8d1f"
_MAX_CHARS = 40


def chinese_number(text: str) -> str:
    """Return a text that is a whole number in Chinese numerals in digits, another as it is."""
    plain = text.strip()
    body = plain.removeprefix(_MINUS)
    if not body or len(body) > _MAX_CHARS or any(c not in _DIGITS | _TENS | _MYRIADS for c in body):
        return text
    sign = "-" if body != plain else ""
    if all(c in _DIGITS for c in body):
        return sign + "".join(str(_DIGITS[c]) for c in body)
    total = part = 0
    digit: int | None = None
    for c in body:
        if c in _DIGITS:
            digit = _DIGITS[c]
        elif c in _TENS:
            part, digit = part + (1 if digit is None else digit) * _TENS[c], None
        else:
            total, part, digit = (total + part + (digit or 0)) * _MYRIADS[c], 0, None
    return f"{sign}{total + part + (digit or 0)}"
