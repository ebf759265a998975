"""Exact values of LaTeX that is arithmetic and nothing else, without rounding, however small."""

from __future__ import annotations

import re
from fractions import Fraction
from math import factorial

_TOKEN = re.compile(
    r"\s*(\d+\.\d+|\.\d+|\d+\.(?!\d)|\d+|\\frac|\\times|\\cdot|\\div|[-+/^!(){}\[\]])\s*"
)
_MAX_BITS = 20_000
_MAX_DEPTH = 20
_MAX_CHARS = 300


class _NoValueError(ValueError):
    """The text is not arithmetic, or its value is too large to write out."""


def exact_value(text: str) -> Fraction | None:
    """Return the value of a text that is arithmetic with whole and decimal numbers."""
    if not text or len(text) > _MAX_CHARS or not re.search(r"\d", text):
        return None
    tokens: list[str] = []
    position = 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            return None
        tokens.append(found[1])
        position = found.end()
    try:
        reader = _Reader(tokens)
        value = reader.total(0)
        return value if reader.is_done() else None
    except (_NoValueError, ZeroDivisionError, IndexError, RecursionError):
        return None


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def is_done(self) -> bool:
        return self._at == len(self._tokens)

    def _peek(self) -> str:
        return "" if self.is_done() else self._tokens[self._at]

    def _take(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def total(self, depth: int) -> Fraction:
        if depth > _MAX_DEPTH:
            raise _NoValueError
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            value = (
                value + self._product(depth)
                if self._take() == "+"
                else value - self._product(depth)
            )
        return _bounded(value)

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while token := self._peek():
            if token in ("\\times", "\\cdot"):
                self._take()
                value *= self._signed(depth)
            elif token in ("/", "\\div"):
                self._take()
                value /= self._signed(depth)
            elif token == "(":  # 2(3)
                value *= self._power(depth)
            else:
                return value
            value = _bounded(value)
        return value

    def _signed(self, depth: int) -> Fraction:
        if self._peek() in ("-", "+"):
            sign = -1 if self._take() == "-" else 1
            if self._peek() in ("-", "+"):
                raise _NoValueError
            return sign * self._power(depth)
        return self._power(depth)

    def _power(self, depth: int) -> Fraction:
        value = self._atom(depth)
        while self._peek() in ("^", "!"):
            if self._take() == "!":
                if value.denominator != 1 or not 0 <= value <= 3_000:
                    raise _NoValueError
                value = Fraction(factorial(int(value)))
                continue
            exponent = self._group(depth) if self._peek() == "{" else self._atom(depth)
            if self._peek() == "^":
                raise _NoValueError  # a double exponent
            value = _raised(value, exponent)
        return _bounded(value)

    def _atom(self, depth: int) -> Fraction:
        token = self._take()
        if token == "(":
            value = self.total(depth + 1)
            if self._take() != ")":
                raise _NoValueError
            return value
        if token == "\\frac":
            top = self._group(depth)
            return top / self._group(depth)
        if token[0].isdigit() or token[0] == ".":
            return _bounded(Fraction(token.rstrip(".")))
        raise _NoValueError

    def _group(self, depth: int) -> Fraction:
        if self._take() != "{":
            raise _NoValueError
        value = self.total(depth + 1)
        if self._take() != "}":
            raise _NoValueError
        return value


def _raised(value: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise _NoValueError
    bits = max(value.numerator.bit_length(), value.denominator.bit_length())
    if abs(exponent) * bits > _MAX_BITS:
        raise _NoValueError
    return value ** int(exponent)


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * _MAX_BITS:
        raise _NoValueError
    return value
