"""What a tool returns, read: its text without keys, its usage, the reason of a failure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import BaseTool

from eapo_agents.errors import ExpertError, innermost
from eapo_agents.experts.usage import Usage
from eapo_agents.secrets import redact


def call_of(tool: BaseTool, arguments: Mapping[str, object]) -> ToolCall:
    """Return the call of a tool with these arguments."""
    return ToolCall(type="tool_call", id="call", name=tool.name, args=dict(arguments))


def as_message(reply: object) -> ToolMessage:
    """Return what a tool gave as a tool message."""
    return reply if isinstance(reply, ToolMessage) else ToolMessage(str(reply), tool_call_id="call")


def usage_in(reply: ToolMessage) -> Usage:
    """Return what a tool says that its call was billed."""
    return reply.artifact if isinstance(reply.artifact, Usage) else Usage()


def clean(text: str) -> str:
    """Return text without keys, which files and tokenizers take."""
    # JSON can carry a lone surrogate, which no file and no tokenizer accepts
    return redact(text).encode("utf-8", "replace").decode("utf-8")


def text_of(reply: ToolMessage) -> str:
    """Return a reply as text."""
    text = str(reply.text)
    if not text and reply.content:  # blocks without text, such as JSON or an image
        text = json.dumps(reply.content, ensure_ascii=False, default=str)
    return text


def reason_of(raised: Exception) -> str:
    """Return why a call failed."""
    error = innermost(raised)
    said = str(error) or type(error).__name__
    return said if isinstance(error, ExpertError) else f"{type(error).__name__}: {said}"
