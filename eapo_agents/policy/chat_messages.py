"""A policy's turn as LangChain's messages: whole, or in the pieces in which it is streamed."""

from __future__ import annotations

import json
import re

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    InvalidToolCall,
    ToolCall,
    ToolCallChunk,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.json import parse_partial_json

from eapo_agents.policy.formats import THOUGHT, InvalidCall, ParsedTurn

_REASONS = "eapo_invalid_calls"
"""Key in `additional_kwargs`: call id -> why it cannot be sent. LangChain's own place for it is
lost where pieces are added up."""
_MARKED = "<tool_call>"
_LONG = 1000
_MAY_BEGIN_A_CALL = re.compile(
    r"<(?![\s\d=.,;)])"  # a tag
    r"|\[(?=\s*(?:\{|[A-Z]|[A-Za-z_][\w.]*\(|[\w.]*\Z))"  # [TOOL_CALLS], [{...}], [f(...)]
    r"|(?<![\w\\}\]^])\{"  # an object, which in LaTeX has something before it
    r"|`(?=``|`?\Z)"  # a fence
)
"""Where a call or a thought may begin, in any form that models write."""


def message_of(
    parsed: ParsedTurn,
    record_id: str,
    *,
    finish_reason: str,
    model: str,
    num_prompt: int | None,
    num_sampled: int | None,
) -> AIMessage:
    """Return a turn's message, without its record. A service may not count tokens (None)."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for slot, call in enumerate(parsed.calls):
        name = call_id(record_id, slot)
        if isinstance(call, InvalidCall):
            invalid.append(
                InvalidToolCall(
                    type="invalid_tool_call",
                    name=None,
                    args=_not_an_object(call.text),
                    id=name,
                    error=call.reason,
                )
            )
        else:
            calls.append(ToolCall(type="tool_call", name=call.name, args=call.arguments, id=name))
    usage = None
    if num_prompt is not None and num_sampled is not None:
        usage = UsageMetadata(
            input_tokens=num_prompt,
            output_tokens=num_sampled,
            total_tokens=num_prompt + num_sampled,
        )
    more: dict[str, object] = {THOUGHT: parsed.thinking} if parsed.thinking else {}
    if invalid:
        more[_REASONS] = {call["id"]: call["error"] for call in invalid}
    return AIMessage(
        content=parsed.content,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        additional_kwargs=more,
        response_metadata={"finish_reason": finish_reason, "model_name": model},
        usage_metadata=usage,
    )


def reason_of(message: AIMessage, call: InvalidToolCall) -> str | None:
    """Return why a call of a turn cannot be sent."""
    reasons = message.additional_kwargs.get(_REASONS, {})
    return call["error"] or reasons.get(call["id"])


def sure_text(text: str) -> str:
    """Return what of a turn that is being written is content for certain: all before the place
    where a call or a thought may have begun."""
    found = _MAY_BEGIN_A_CALL.search(text)
    return (text[: found.start()] if found else text).strip()


def piece_of(text: str) -> ChatGenerationChunk:
    """Return a piece of text."""
    return ChatGenerationChunk(message=AIMessageChunk(content=text))


def last_piece(message: AIMessage, said: str) -> ChatGenerationChunk:
    """Return all of a message that is not text already said: added to the pieces before, it gives
    the message.

    A thought without a beginning is noticed only where it ends. Then the content follows what was
    said of the thought.
    """
    content = str(message.content)
    rest = content[len(said) :] if content.startswith(said) else f"\n{content}"
    written: list[tuple[str | None, str, str | None]] = [
        *((c["name"], json.dumps(c["args"]), c["id"]) for c in message.tool_calls),
        *((c["name"], c["args"] or "", c["id"]) for c in message.invalid_tool_calls),
    ]
    chunks = [
        ToolCallChunk(
            type="tool_call_chunk", name=name, args=args, id=name_id, index=call_slot(name_id or "")
        )
        for name, args, name_id in written
    ]
    piece = AIMessageChunk(
        content=rest,
        tool_call_chunks=sorted(chunks, key=lambda chunk: chunk["index"] or 0),
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=piece)


def call_id(record_id: str, slot: int) -> str:
    """Return the id of a turn's call: no two turns share one, and it tells the order in which the
    calls were written."""
    return f"call_{record_id}_{slot}"


def call_slot(tool_call_id: str) -> int:
    """Return the position of a call among its turn's calls, from its id."""
    return int(tool_call_id.rsplit("_", 1)[1])


def _not_an_object(text: str) -> str:
    """Return a text that LangChain does not complete to an object: it would make a call without a
    name of it where pieces are added up."""
    if len(text) > _LONG:  # LangChain's parser takes time quadratic in it
        return _MARKED + text
    try:
        complete = isinstance(parse_partial_json(text), dict) if text else True
    except ValueError:
        complete = False
    return _MARKED + text if complete else text
