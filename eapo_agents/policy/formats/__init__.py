"""The forms in which models write tool calls and thoughts."""

from eapo_agents.policy.formats.base import Call, Format, InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.policy.formats.families import FAMILIES, HERMES

THOUGHT = "reasoning_content"
"""Key of a turn's thought in `AIMessage.additional_kwargs`, as LangChain's chat models name it."""

__all__ = [
    "FAMILIES",
    "HERMES",
    "THOUGHT",
    "Call",
    "Format",
    "InvalidCall",
    "ParsedCall",
    "ParsedTurn",
]
