"""Tool calls in a completion, in the form that our own tool section teaches: `<tool_call>{"name":
..., "arguments": {...}}</tool_call>`."""

from __future__ import annotations

from collections.abc import Mapping

from eapo_agents.policy.formats import HERMES, InvalidCall, ParsedCall, ParsedTurn

__all__ = ["InvalidCall", "ParsedCall", "ParsedTurn", "format_call", "parse_turn"]


def parse_turn(text: str) -> ParsedTurn:
    """Split a completion at its thoughts and tool calls. A call that is still open at the end
    counts if it is whole: models may write the end of turn in place of the closing tag."""
    return HERMES.parse(text)


def format_call(name: str, arguments: Mapping[str, object]) -> str:
    """Return the text of one call, as `parse_turn` reads it back."""
    return HERMES.render([ParsedCall(name=name, arguments=dict(arguments))])
