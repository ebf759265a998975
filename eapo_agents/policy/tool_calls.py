"""Hermes-style tool calls in a completion: `<tool_call>{"name": ..., "arguments":
{...}}</tool_call>`.

The parser accepts anything a model may write and never raises. A call that cannot be sent becomes
an `InvalidCall`, whose reason the policy reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(rf"{OPEN}(.*?)(?:{CLOSE}|(?={OPEN})|\Z)", re.DOTALL)
MAX_CALL_CHARS = 20_000
"""Longer blocks are invalid: no expert's schema needs them, and nested JSON is parsed
recursively."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCall:
    """One well-formed call."""

    name: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCall:
    """One call that cannot be sent, with the reason as a sentence for the policy."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedTurn:
    """A completion split into its text and its calls, in the order written."""

    content: str
    calls: tuple[ParsedCall | InvalidCall, ...]


def parse_turn(text: str) -> ParsedTurn:
    """Split a completion at its tool calls.

    A call that is still open at the end of the text counts if its JSON is whole: models may write
    the end of turn in place of the closing tag.
    """
    calls = tuple(_parse_call(match.group(1)) for match in _BLOCK.finditer(text))
    return ParsedTurn(content=_BLOCK.sub("", text).strip(), calls=calls)


def format_call(name: str, arguments: Mapping[str, object]) -> str:
    """Return the text of one call, as `parse_turn` reads it back."""
    call = {"name": name, "arguments": dict(arguments)}
    return f"{OPEN}{json.dumps(call, ensure_ascii=False)}{CLOSE}"


def _parse_call(body: str) -> ParsedCall | InvalidCall:
    if len(body) > MAX_CALL_CHARS:
        return InvalidCall(text=body[:200], reason="The tool call is too long.")
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return InvalidCall(text=body, reason="The tool call is not valid JSON.")
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return InvalidCall(text=body, reason='The tool call needs "name" and "arguments".')
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):  # some models write the arguments as a JSON string
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        return InvalidCall(text=body, reason='"arguments" must be a JSON object.')
    return ParsedCall(name=call["name"], arguments=arguments)
