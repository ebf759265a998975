"""What the endpoint replies, in the words of OpenAI's chat completions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from eapo_agents.policy.formats import THOUGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer to a request."""

    ours: Sequence[BaseMessage]
    """All that was said: turns of the policy, and experts' replies that the client does not see."""
    shown: AIMessage
    """What the client sees, and sends back as its history."""
    finish_reason: str

    @property
    def turns(self) -> list[AIMessage]:
        """The policy's turns."""
        return [message for message in self.ours if isinstance(message, AIMessage)]

    def message(self) -> dict[str, Any]:
        """Return the message as the client gets it."""
        calls = _calls(self.shown)
        found: dict[str, Any] = {"role": "assistant", "content": str(self.shown.content) or None}
        if calls:
            found["tool_calls"] = calls
        elif found["content"] is None:
            found["content"] = ""
        thought = self.turns[-1].additional_kwargs.get(THOUGHT)
        if isinstance(thought, str) and thought:
            found["reasoning_content"] = thought
        return found


def _calls(message: AIMessage) -> list[dict[str, Any]]:
    return [
        {
            "id": call["id"],
            "type": "function",
            "function": {
                "name": call["name"],
                "arguments": json.dumps(call["args"], ensure_ascii=False),
            },
        }
        for call in message.tool_calls
    ]


def usage_of(choices: Sequence[Choice]) -> dict[str, int]:
    """Return the tokens of all turns, those that asked experts too."""
    used = [turn.usage_metadata for choice in choices for turn in choice.turns]
    prompt = sum(one["input_tokens"] for one in used if one)
    completion = sum(one["output_tokens"] for one in used if one)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What every reply to one request begins with."""

    id: str
    model: str
    created: int

    @classmethod
    def of(cls, name: str, model: str) -> Heading:
        """Return the heading of a reply that is made now."""
        return cls(id=f"chatcmpl-{name}", model=model, created=int(time.time()))

    def completion(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return a whole reply."""
        return {
            **self._begun("chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": choice.message(),
                    "finish_reason": choice.finish_reason,
                    "logprobs": None,
                }
                for index, choice in enumerate(choices)
            ],
            "usage": usage_of(choices),
        }

    def piece(self, index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """Return a piece of a streamed reply."""
        choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": None}
        return {**self._begun("chat.completion.chunk"), "choices": [choice]}

    def rest(self, index: int, choice: Choice, said: str) -> list[dict[str, Any]]:
        """Return the pieces of a choice of which `said` was sent already."""
        message = choice.message()
        content = message["content"] or ""
        rest = content[len(said) :] if content.startswith(said) else f"\n{content}"
        pieces = [self.piece(index, {"content": rest})] if rest else []
        if thought := message.get("reasoning_content"):
            pieces.insert(0, self.piece(index, {"reasoning_content": thought}))
        calls = [{"index": slot, **call} for slot, call in enumerate(message.get("tool_calls", ()))]
        if calls:
            pieces.append(self.piece(index, {"tool_calls": calls}))
        return [*pieces, self.piece(index, {}, choice.finish_reason)]

    def usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """Return the last piece of a streamed reply: what it cost."""
        return {
            **self._begun("chat.completion.chunk"),
            "choices": [],
            "usage": usage_of(choices),
        }

    def _begun(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
