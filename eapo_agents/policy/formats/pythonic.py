"""Calls written as Python: LFM2 between marks, Llama 3.2 and 4 bare."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eapo_agents.policy.formats.base import (
    MAX_CALL_CHARS,
    Call,
    Format,
    ParsedCall,
    Span,
    dumps,
    invalid,
    quoted,
)
from eapo_agents.policy.formats.lenient import unescaped

_AT_A_LINE = r"(?:\A\s*|(?<=\n))(?:<\|python_(?:start|tag)\|>\s*)?(?=[ \t]*\[)"
_HEAD = re.compile(r"\s*([A-Za-z_][\w.-]*)\(")
_KEY = re.compile(r"\s*([^\s=,()'\"]+)\s*=\s*")
_BARE = re.compile(r"[^,()\[\]{}'\"]+")
_RAW_END = re.compile(r"'(?=\s*(?:,\s*[^\s=,()'\"]+\s*=|\)\s*(?:,\s*[A-Za-z_]|\])))")
_WORDS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


@dataclass(frozen=True, kw_only=True)
class Pythonic(Format):
    """`OPEN [name(key=value, ...), ...] CLOSE`."""

    opening: str = ""
    """Empty: the list stands at the beginning of a line."""
    closing: str = ""
    escaped: bool = True
    """Whether strings are escaped; else only the next key or the end closes one."""

    def find(self, text: str, start: int) -> Span | None:
        pattern = re.escape(self.opening) if self.opening else _AT_A_LINE
        if start and not self.opening:  # what stands behind a thought begins a line, too
            span = self.find(text[start:], 0)
            return span and replace(span, start=start + span.start, end=start + span.end)
        for opening in re.compile(pattern).finditer(text, start):
            if self.opening and quoted(text, opening.start(), opening.end()):
                continue
            begin = re.compile(r"\s*\[?").match(text, opening.end())
            inside = begin.end() if begin else opening.end()
            if _HEAD.match(text, inside):
                return self._span(text, opening.start(), inside)
            end = text.find(self.closing, inside) if self.closing else -1
            if end >= 0:
                body = text[inside:end]
                reason = "The tool call cannot be read: write [name(key='value')]."
                after = end + len(self.closing)
                return Span(start=opening.start(), end=after, calls=(invalid(body, reason),))
        return None

    def _span(self, text: str, start: int, inside: int) -> Span | None:
        scan = _Scan(text[: inside + MAX_CALL_CHARS], inside, self.escaped)
        try:
            calls: tuple[Call, ...] = tuple(scan.calls())
            end = scan.at
        except (ValueError, RecursionError) as error:
            found = text.find(self.closing, inside) if self.closing else len(text)
            end = len(text) if found < 0 else found
            calls = (invalid(text[inside:end], f"The tool call cannot be read: {error}."),)
            if not self.opening:
                return (
                    None if "=" not in text[inside:end] else Span(start=start, end=end, calls=calls)
                )
        closing = re.compile(rf"\s*\]?\s*{re.escape(self.closing)}").match(text, end)
        return Span(start=start, end=closing.end() if closing else end, calls=calls)

    def render(self, calls: Sequence[ParsedCall]) -> str:
        texts = []
        for call in calls:
            pairs = [f"{key}={self._value(value)}" for key, value in call.arguments.items()]
            texts.append(f"{call.name}({', '.join(pairs)})")
        return f"{self.opening}[{', '.join(texts)}]{self.closing}"

    def _value(self, value: object) -> str:
        if not isinstance(value, str):
            return repr(value) if value is None or isinstance(value, bool) else dumps(value)
        if self.escaped:
            for plain, code in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
                value = value.replace(plain, code)
        return f"'{value}'"


class _Scan:
    """Reads calls from a position on; ValueError where they cannot be read."""

    def __init__(self, text: str, at: int, escaped: bool) -> None:
        self.text = text
        self.at = at
        self.escaped = escaped

    def calls(self) -> list[ParsedCall]:
        found = []
        while head := _HEAD.match(self.text, self.at):
            self.at = head.end()
            found.append(ParsedCall(name=head.group(1), arguments=self._arguments()))
            if not self._take(","):
                break
        return found

    def _arguments(self) -> dict[str, object]:
        arguments: dict[str, object] = {}
        while not self._take(")"):
            key = _KEY.match(self.text, self.at)
            if key is None:
                raise ValueError(f"key=value is missing at '{self.text[self.at :][:30]}'")
            self.at = key.end()
            arguments[key.group(1)] = self._value()
            if not self._take(",") and not self._sees(")"):
                raise ValueError(f"a comma is missing at '{self.text[self.at :][:30]}'")
        return arguments

    def _value(self) -> object:
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"') and first:
            return self._string(first)
        if first in ("{", "[") and first:
            return self._json()
        bare = _BARE.match(self.text, self.at)
        if bare is None:
            raise ValueError(f"a value is missing at '{self.text[self.at :][:30]}'")
        self.at = bare.end()
        word = bare.group().strip()
        if word in _WORDS:
            return _WORDS[word]
        try:
            return json.loads(word)
        except ValueError:
            return word

    def _string(self, quote: str) -> str:
        if quote == "'" and not self.escaped:
            end = _RAW_END.search(self.text, self.at + 1)
            if end is None:
                raise ValueError("a string is not closed")
            found = self.text[self.at + 1 : end.start()]
            self.at = end.end()
            return found
        closed = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL)
        string = closed.match(self.text, self.at)
        if string is None:
            raise ValueError("a string is not closed")
        self.at = string.end()
        return _plain(string.group(1))

    def _json(self) -> object:
        try:
            value, self.at = json.JSONDecoder(strict=False).raw_decode(self.text, self.at)
        except ValueError:
            return self._literal()
        return value

    def _literal(self) -> object:
        """Read a Python list or dictionary: its end is the first where it is one."""
        for end in re.finditer(r"[\]}]", self.text[self.at : self.at + MAX_CALL_CHARS]):
            stop = self.at + end.end()
            try:
                value: object = ast.literal_eval(self.text[self.at : stop])
            except (ValueError, SyntaxError, MemoryError):
                continue
            self.at = stop
            return value
        raise ValueError(f"'{self.text[self.at :][:30]}' is not a value")

    def _take(self, sign: str) -> bool:
        if self._sees(sign):
            self.at = self.text.index(sign, self.at) + 1
            return True
        return False

    def _sees(self, sign: str) -> bool:
        return self.text[self.at :].lstrip()[:1] == sign


def _plain(inside: str) -> str:
    """Return a Python string's meaning, with LaTeX kept."""
    if re.search(r"\\[a-zA-Z]{2,}", inside.replace("\\\\", "")):
        try:
            return unescaped(inside.replace("\\'", "'").replace('"', '\\"'))
        except ValueError:
            return inside
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[0]), inside, flags=re.DOTALL)


_LFM = ("<|tool_call_start|>", "<|tool_call_end|>")
LFM2 = Pythonic(
    name="Python, as LFM2 writes it",
    marks=_LFM,
    ends=_LFM[1:],
    signs=("<|tool_list_start|>",),
    opening=_LFM[0],
    closing=_LFM[1],
)
LFM2_RAW = Pythonic(
    name="Python with raw strings, as LFM2.5 writes it",
    marks=_LFM,
    ends=_LFM[1:],
    signs=("<|tool_call_start|>", "<|tool_call_end|>"),
    opening=_LFM[0],
    closing=_LFM[1],
    escaped=False,
)
PYTHONIC = Pythonic(
    name="Python, as Llama 3.2 and 4 write it",
    marks=("<|python_start|>", "<|python_end|>", "<|python_tag|>"),
    frames=("<|python_start|>", "<|python_end|>"),
    signs=("[func_name1(params_name1=",),
)
