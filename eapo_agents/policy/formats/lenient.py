"""JSON as models write it: raw newlines, LaTeX, a comma too many, a fence, several objects."""

from __future__ import annotations

import ast
import json
import re
from functools import lru_cache

_FENCE = re.compile(r"\A\s*```[a-zA-Z]*\s*\n?(.*?)\n?\s*(?:```\s*)?\Z", re.DOTALL)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|[a-zA-Z]+|.|\Z)", re.DOTALL)
_STRING_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)
_WORDS = """
backslash bar because begin beta between bf bigcap bigcup binom bmod bold boldsymbol bot bowtie
boxed breve bullet big bigg biggl biggr bigl bigr bigoplus bigotimes fbox flat forall frac frown
nabla natural nearrow neg neq newline nexists ngeq nleq nmid nolimits nonumber norm notin
nparallel nrightarrow nsubseteq nwarrow rangle rbrace rceil rfloor rho right rightarrow
rightharpoonup rightleftharpoons rm rvert tan tanh tau tbinom text textbf textit textrm tfrac
theta therefore tilde times top triangle triangleleft triangleright triangleq
"""
_LATEX = frozenset(_WORDS.split())
"""LaTeX commands that begin like an escape of JSON. `\\nu`, `\\ne`, `\\to` and `\\not` are left
out: a line break before a word is likelier."""
_PLAIN_ESCAPES = frozenset('"\\/')


def read_values(text: str) -> list[object]:
    """Return the JSON values that a text consists of: one, several in a row, or those of a list.

    Raises:
        ValueError: it is not JSON, with the place; RecursionError where it is too deep.
    """
    fenced = _FENCE.match(text)
    body = (fenced.group(1) if fenced else text).strip()
    body = _ESCAPE.sub(_escaped, body)
    try:
        values = _decode_all(body)
    except ValueError as error:
        try:
            values = _decode_all(_STRING_OR_COMMA.sub(_without_comma, body))
        except ValueError:
            values = [_python_literal(body, error)]
    return [item for value in values for item in (value if isinstance(value, list) else [value])]


def unescaped(text: str) -> str:
    """Return the meaning of a string's inside, with LaTeX kept."""
    return str(json.loads(f'"{_ESCAPE.sub(_escaped, text)}"', strict=False))


def _escaped(match: re.Match[str]) -> str:
    word = match.group(1)
    if word in _PLAIN_ESCAPES or (word[:1] == "u" and len(word) == 5 and word[1:].isalnum()):
        return match.group()
    if word[:1] in tuple("bfnrt") and word not in _LATEX:
        return match.group()
    return "\\" + match.group()


def _without_comma(match: re.Match[str]) -> str:
    return "" if match.group() == "," else match.group()


@lru_cache(maxsize=1)
def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(strict=False)  # raw line breaks are allowed


def _decode_all(body: str) -> list[object]:
    values: list[object] = []
    position = 0
    while True:
        value, position = _decoder().raw_decode(body, position)
        values.append(value)
        rest = body[position:].lstrip(" \t\r\n,;")
        if not rest:
            return values
        position = len(body) - len(rest)


def _python_literal(body: str, error: ValueError) -> object:
    """Read `{'name': 'a'}`, which some models write; else raise the error of the JSON."""
    try:
        value: object = ast.literal_eval(body)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise error from None
    if not isinstance(value, dict | list):
        raise error
    return value
