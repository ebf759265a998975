"""Calls of Gemma 4: `<|tool_call>call:NAME{key:value}<tool_call|>`, strings between `<|"|>`."""

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
    invalid,
    json_calls,
    quoted,
)

_OPEN, _CLOSE, _QUOTE = "<|tool_call>", "<tool_call|>", '<|"|>'
_NAME = re.compile(r"\s*call:\s*([^\s{]+)\s*(?=\{)")
_KEY = re.compile(r"([{,]\s*)([^\s:{}\[\],\"]+)\s*:")
_WORD = re.compile(r"(?<=[:,\[])(\s*)(None|True|False)(?=\s*[,\]}])")
_WORDS = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True, kw_only=True)
class Gemma(Format):
    """JSON whose keys have no quotes, and whose strings stand between tokens."""

    def find(self, text: str, start: int) -> Span | None:
        while (at := text.find(_OPEN, start)) >= 0:
            inside = start = at + len(_OPEN)
            if quoted(text, at, inside):
                continue
            end = self._end(text, inside)
            body = text[inside : len(text) if end < 0 else end]
            if end >= 0 or _NAME.match(body):
                after = len(text) if end < 0 else end + len(_CLOSE)
                return Span(start=at, end=after, calls=self._calls(body))
        return None

    def _end(self, text: str, start: int) -> int:
        """Return where a call closes; a close within a string is not the close."""
        at = text.find(_CLOSE, start)
        while at >= 0 and text.count(_QUOTE, start, at) % 2:
            at = text.find(_CLOSE, at + 1)
        return at

    def _calls(self, body: str) -> tuple[Call, ...]:
        if len(body) > MAX_CALL_CHARS:
            return (invalid(body[:200], "The tool call is too long."),)
        if body.lstrip().startswith(("{", "[")):
            return json_calls(body)
        name = _NAME.match(body)
        if name is None:
            return (invalid(body, "The tool call has no name: write call:name{key:value}."),)
        try:
            arguments = json.loads(_as_json(body[name.end() :]), strict=False)
        except (ValueError, RecursionError) as error:
            return (invalid(body, f"The tool call's arguments cannot be read: {error}."),)
        if not isinstance(arguments, dict):
            return (invalid(body, "The tool call's arguments must be {key:value, ...}."),)
        return (ParsedCall(name=name.group(1), arguments=arguments),)

    def render(self, calls: Sequence[ParsedCall]) -> str:
        return "".join(f"{_OPEN}call:{c.name}{_written(c.arguments)}{_CLOSE}" for c in calls)


def _as_json(text: str) -> str:
    pieces = text.split(_QUOTE)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = json.dumps(piece)
        else:
            quoted_keys = _KEY.sub(r'\1"\2":', piece)
            pieces[index] = _WORD.sub(lambda word: word[1] + _WORDS[word[2]], quoted_keys)
    return "".join(pieces)


def _written(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return f"{_QUOTE}{value}{_QUOTE}" if isinstance(value, str) else json.dumps(value)


GEMMA = Gemma(
    name="Gemma 4's calls",
    marks=(_OPEN, _CLOSE, _QUOTE),
    signs=("<|tool>declaration:",),
    thoughts=(("<|channel>thought", "<channel|>"), ("<think>", "</think>")),
)
