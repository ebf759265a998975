"""Calls whose name stands before the JSON of the arguments: Mistral, DeepSeek."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.policy.formats.base import (
    MAX_CALL_CHARS,
    Call,
    Format,
    ParsedCall,
    Span,
    dumps,
    end_of_json,
    invalid,
    json_calls,
    quoted,
    with_arguments,
)


@dataclass(frozen=True, kw_only=True)
class NamedJson(Format):
    """`OPEN HEAD {arguments} TAIL`, once or several times, and perhaps a close."""

    opening: str
    """Pattern of how calls begin."""
    head: str
    """Pattern of what stands before the arguments, with the group `name`."""
    tail: str
    """Pattern of what stands behind the arguments."""
    closing: str = ""
    """What closes the block; it may be missing at the end of a text only."""
    written: tuple[str, str, str, str]
    """How a turn's calls begin, one's begin ({name}), its end, and the end of all."""

    def find(self, text: str, start: int) -> Span | None:
        for opening in re.compile(self.opening).finditer(text, start):
            if quoted(text, opening.start(), opening.end()):
                continue
            calls, end = self._calls(text, opening.end())
            if calls:
                return Span(start=opening.start(), end=end, calls=calls)
        return None

    def _calls(self, text: str, start: int) -> tuple[tuple[Call, ...], int]:
        """Return the calls of a block and where it ends."""
        first = text[start : start + 99].lstrip()[:1]
        if first in ("[", "{") and first:
            end = end_of_json(text, start)
            return json_calls(text[start:end]), end
        calls: list[Call] = []
        head = re.compile(self.head)
        tail = re.compile(self.tail)
        position = start
        while found := head.match(text, position):
            end = end_of_json(text, found.end())
            if end == len(text) and not _is_json(text[found.end() :]):
                # not JSON as it should be, but it may have an end
                tails = (one for one in tail.finditer(text, found.end()) if one.group().strip())
                end = next((one.start() for one in tails), end)
            body = text[found.end() : end]
            if len(body) > MAX_CALL_CHARS:
                calls.append(invalid(body[:200], "The tool call is too long."))
            else:
                calls.append(with_arguments(found["name"], body.strip() or "{}", body))
            after = tail.match(text, end)
            position = after.end() if after else end
        if not calls and self.closing:
            end = text.find(self.closing, start)
            end = len(text) if end < 0 else end
            calls = [
                invalid(text[start:end], f"The tool call has no name: write {self._example()}.")
            ]
            position = end
        rest = re.compile(rf"\s*{re.escape(self.closing)}").match(text, position)
        if self.closing and rest is None:
            position = len(text)
        return tuple(calls), rest.end() if rest and self.closing else position

    def _example(self) -> str:
        return " ".join(self.render([ParsedCall(name="name", arguments={"key": "value"})]).split())

    def render(self, calls: Sequence[ParsedCall]) -> str:
        first, begin, end, last = self.written
        texts = [begin.format(name=call.name) + dumps(call.arguments) + end for call in calls]
        return first + "\n".join(texts) + last if self.closing else first + first.join(texts)


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


MISTRAL = NamedJson(
    name="a name and JSON, as newer Mistral models write them",
    marks=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    signs=("[TOOL_CALLS]", "[ARGS]"),
    thoughts=(("[THINK]", "[/THINK]"), ("<think>", "</think>")),
    opening=r"\[TOOL_CALLS\]",
    head=r"\s*(?P<name>[\w.-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\]|(?=\s*\{))",
    tail=r"\s*(?:\[TOOL_CALLS\](?=\s*[\w.-]+(?:\[|\s*\{)))?",
    written=("[TOOL_CALLS]", "{name}[ARGS]", "", ""),
)
_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")  # noqa: RUF001
_ONE = ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>")  # noqa: RUF001


def _deepseek(name: str, begin: str, end: str) -> NamedJson:
    first, separator, last = _ONE
    return NamedJson(
        name=name,
        marks=(*_DEEPSEEK, *_ONE),
        ends=(_DEEPSEEK[1],),
        signs=(first, separator),
        opening=_DEEPSEEK[0],
        closing=_DEEPSEEK[1],
        head=rf"\s*{first}(?:function{separator})?\s*(?P<name>[^\s<{{`]+)\s*(?:{separator})?"
        r"\s*(?:```(?:json)?\s*)?",
        tail=rf"\s*(?:```)?\s*{last}",
        written=(_DEEPSEEK[0], begin, end, _DEEPSEEK[1]),
    )


DEEPSEEK = _deepseek(
    "JSON in a fence, as DeepSeek V3 and R1 write it",
    f"{_ONE[0]}function{_ONE[1]}{{name}}\n```json\n",
    f"\n```{_ONE[2]}",
)
DEEPSEEK_31 = _deepseek(
    "a name and JSON, as DeepSeek V3.1 writes them", f"{_ONE[0]}{{name}}{_ONE[1]}", _ONE[2]
)
