"""The forms in which models write tool calls and thoughts."""

from eapo_agents.policy.formats.base import Format, InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.policy.formats.tagged import TaggedJson

__all__ = ["HERMES", "Format", "InvalidCall", "ParsedCall", "ParsedTurn"]

HERMES = TaggedJson(opening="<tool_call>", closing="</tool_call>")
"""Also the form that our own tool section teaches, where a template teaches none."""
