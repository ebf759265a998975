"""Calls without a mark of their own: the JSON of Llama 3."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.policy.formats.base import (
    Format,
    ParsedCall,
    Span,
    dumps,
    end_of_json,
    json_calls,
)

_VALUES = {"parameters", "arguments"}
_BEGIN = re.compile(
    r"(?:\A\s*|(?<=\n)[ \t]*)(?:<\|python_tag\|>\s*)?"
    r"(?=\{\s*\"(?:name|type|function|parameters|arguments)\"\s*:)"
)


@dataclass(frozen=True, kw_only=True)
class BareJson(Format):
    """`{"name": ..., "parameters": {...}}` at the beginning of a line; `;` may separate two."""

    def find(self, text: str, start: int) -> Span | None:
        rest = text[start:]  # what stands behind a thought begins a line, too
        for begin in _BEGIN.finditer(rest):
            end = end_of_json(rest, begin.end())
            body = rest[begin.end() : end]
            if end < len(rest) and not _is_call(body):
                continue
            if end == len(rest) and not re.search(r'"(?:parameters|arguments)"', body):
                continue
            after = re.compile(r"\s*;").match(rest, end)
            end = after.end() if after else end
            return Span(start=start + begin.start(), end=start + end, calls=json_calls(body))
        return None

    def render(self, calls: Sequence[ParsedCall]) -> str:
        return "; ".join(dumps({"name": c.name, "parameters": c.arguments}) for c in calls)


def _is_call(body: str) -> bool:
    """Whether JSON is a call, not an answer in JSON."""
    try:
        value = json.loads(body, strict=False)
    except (ValueError, RecursionError):
        return True
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    return isinstance(value, dict) and "name" in value and bool(_VALUES & set(value))


LLAMA = BareJson(
    name='JSON with "parameters", as Llama 3 writes it',
    marks=("<|python_tag|>",),
    signs=('"parameters": dictionary of argument name',),
)
