"""JSON calls between marks, as in Hermes (Qwen2.5, Qwen3, SmolLM2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.policy.formats.base import (
    MAX_CALL_CHARS,
    Format,
    ParsedCall,
    Span,
    dumps,
    end_of_json,
    invalid,
    json_calls,
    quoted,
)
from eapo_agents.policy.formats.lenient import read_values

_STARTS = re.compile(r"\s*(?:[{\[]|```)")


@dataclass(frozen=True, kw_only=True)
class TaggedJson(Format):
    """`OPEN {"name": ..., "arguments": {...}} CLOSE`; a list of such objects is read too."""

    opening: str
    closing: str = ""
    """Empty: the block ends where its JSON does, else at the end of the text."""
    keys: tuple[str, str] = ("name", "arguments")
    in_list: bool = False
    """Whether one block holds the list of a turn's calls."""

    def find(self, text: str, start: int) -> Span | None:
        while (at := text.find(self.opening, start)) >= 0:
            inside = at + len(self.opening)
            start = inside
            if quoted(text, at, inside):
                continue
            end, after = self._end(text, inside)
            body = text[inside:end]
            # a tag with other words behind it is a mention
            if _STARTS.match(body):
                return Span(start=at, end=after, calls=json_calls(body))
            if after > end and _looks_meant(body):
                reason = "The tool call is not valid JSON: it must begin with {."
                return Span(start=at, end=after, calls=(invalid(body, reason),))
        return None

    def _end(self, text: str, inside: int) -> tuple[int, int]:
        """Where the block's inside ends, and where the text goes on."""
        if not self.closing:
            end = end_of_json(text, inside)
            return end, end
        first = at = text.find(self.closing, inside) if self.closing else -1
        while 0 <= at <= inside + MAX_CALL_CHARS:  # a close within a JSON string is not the close
            if _is_json(text[inside:at]):
                return at, at + len(self.closing)
            at = text.find(self.closing, at + len(self.closing))
        opened = text.find(self.opening, inside)
        limits = [(first, len(self.closing)), (opened, 0)]
        at, size = min((limit for limit in limits if limit[0] >= 0), default=(len(text), 0))
        return at, at + size

    def render(self, calls: Sequence[ParsedCall]) -> str:
        name, arguments = self.keys
        written = [dumps({name: call.name, arguments: call.arguments}) for call in calls]
        if self.in_list:
            written = [f"[{', '.join(written)}]"]
        return "\n".join(f"{self.opening}{one}{self.closing}" for one in written)


def _is_json(text: str) -> bool:
    try:
        return bool(read_values(text))
    except (ValueError, RecursionError):
        return False


def _looks_meant(body: str) -> bool:
    """Whether a closed block that is no JSON was meant as a call: it has one word, or a sign of
    another form of calls."""
    return re.search(r"[{=(<]", body) is not None or re.fullmatch(r"\s*\w*\s*", body) is not None
