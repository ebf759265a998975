"""Reads a chat completion as services send it, whole or in the pieces of a stream.

Content may be text or parts. A thought may be in a field, a part, or the text itself. Nothing here
trusts a type: the SDK does not check what a service sends.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from eapo_agents.errors import ExpertError, TransientExpertError
from eapo_agents.experts.thoughts import split_thought
from eapo_agents.experts.usage import Usage
from eapo_agents.secrets import redact

NO_COMPLETION = "The service's reply is not a chat completion."
_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_BROKEN_OFF = frozenset(
    {"abort", "aborted", "cancelled", "error", "failed"}
    | {"insufficient_system_resource", "network_error"}  # DeepSeek's and Z.ai's
)
_FILTERED = ("content_filter", "safety", "sensitive", "recitation", "refusal")
_CUT_OFF = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})


class WrittenCall(NamedTuple):
    """A call as a service sends it."""

    name: str
    arguments: str
    """JSON, as the model wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One turn of a model behind a service."""

    content: str
    calls: Sequence[WrittenCall]
    finish_reason: str
    """`stop` or `length`."""


@dataclass(slots=True)
class ChatReply:
    """What has arrived of one reply."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    calls: list[WrittenCall] = field(default_factory=list)
    """Of a whole completion. An expert is offered no tools."""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=lambda: Usage(known=False))
    begun: bool = False
    """Whether any choice has arrived."""

    def add(self, completion: object, *, piece: bool = False) -> str:
        """Take a completion, or a `piece` of a stream, and return the text and thought in it.

        Raises:
            TransientExpertError: it is neither.
        """
        if billed := _get(completion, "usage"):
            self.usage = usage_of(billed)
        if problem := _get(completion, "error"):
            said = _get(problem, "message") or problem
            raise TransientExpertError(f"The service's reply is an error: {_short(said)}")
        choices = _get(completion, "choices")
        if not isinstance(choices, list) or (not choices and not piece):
            raise TransientExpertError(NO_COMPLETION)
        written = ""
        for choice in choices:
            if _get(choice, "index") not in (None, 0):
                continue  # only one was asked for
            self.begun = True
            reason = _get(choice, "finish_reason")
            self.finish_reason = str(reason) if reason else self.finish_reason
            message = _get(choice, "delta" if piece else "message")
            if message is None and not piece:
                raise TransientExpertError(NO_COMPLETION)
            written += self._add_message(message)
        return written

    def _add_message(self, message: object) -> str:
        before = len(self.texts), len(self.thoughts)
        for name in _THOUGHT_FIELDS:
            if isinstance(thought := _get(message, name), str) and thought:
                self.thoughts.append(thought)
                break  # services that send several send the same
        self._add_content(_get(message, "content"))
        calls = _get(message, "tool_calls")
        self.calls += [_call(call) for call in calls] if isinstance(calls, list) else []
        if not calls and (older := _get(message, "function_call")):
            self.calls.append(_call({"function": older}))
        if isinstance(refusal := _get(message, "refusal"), str) and refusal:
            self.refusals.append(refusal)
        return "".join([*self.thoughts[before[1] :], *self.texts[before[0] :]])

    def _add_content(self, content: object) -> None:
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list):
            for part in content:
                self._add_content(part)
        elif content is not None:
            self._add_part(content)

    def _add_part(self, part: object) -> None:
        kind = str(_get(part, "type") or "text")
        if kind in ("thinking", "reasoning", "thought"):
            said = next((s for n in (kind, "text", "content") if (s := _text(_get(part, n)))), "")
            self.thoughts.append(said)
        elif kind == "refusal":
            self.refusals.append(_text(_get(part, "refusal")))
        elif kind in ("text", "output_text"):
            self.texts.append(_text(_get(part, "text")))

    def answer(self, *, streamed: bool = False) -> tuple[str, Usage]:
        """Return the answer's text, and the usage with the thought in it.

        Raises:
            ExpertError: there is no answer. The error carries the usage all the same.
        """
        answer = self._without_thought()
        error = self._broken_off(streamed=streamed) or self._empty(answer)
        if error is not None:
            raise self.billed(error)
        return answer, self.usage

    def turn(self) -> tuple[Written, Usage]:
        """Return what a policy wrote, and the usage with the thought in it. A turn may be empty or
        cut off, and a refusal is text.

        Raises:
            ExpertError: the service broke it off or withheld it.
        """
        content = self._without_thought() or "".join(self.refusals)
        error = self._broken_off(streamed=False)
        if not (self.finish_reason or content or self.calls or self.usage.thought):
            error = TransientExpertError("The service's reply is empty, without a finish_reason.")
        if error is not None:
            raise self.billed(error)
        cut_off = (self.finish_reason or "").lower() in _CUT_OFF
        written = Written(
            content=content.strip(), calls=self.calls, finish_reason="length" if cut_off else "stop"
        )
        return written, self.usage

    def _without_thought(self) -> str:
        """Put the thought into the usage, and return the rest of the text."""
        said = split_thought("".join(self.texts))
        fields = "".join(self.thoughts).strip()
        thought = "\n\n".join(part for part in (fields, said.thought) if part)
        self.usage = replace(self.usage, thought=thought)
        return said.answer

    def billed(self, error: ExpertError) -> ExpertError:
        """Return the error with what the call was billed: an unknown sum where some of the reply
        came and no usage."""
        if self.begun or self.usage.known:
            error.usage = self.usage
        return error

    def _broken_off(self, *, streamed: bool) -> ExpertError | None:
        reason = (self.finish_reason or "").lower()
        if streamed and not self.finish_reason:
            if not self.begun:
                return TransientExpertError(NO_COMPLETION)
            return TransientExpertError(
                "The service's stream ended before the reply did: no finish_reason came."
            )
        if reason in _BROKEN_OFF:
            return TransientExpertError(
                f"The service broke its reply off (finish_reason {reason})."
            )
        if reason.startswith(_FILTERED):
            return ExpertError(f"The service withheld its reply (finish_reason {reason}).")
        return None

    def _empty(self, answer: str) -> ExpertError | None:
        reason = (self.finish_reason or "").lower()
        if answer.strip():
            return None
        if refusal := "".join(self.refusals).strip():
            return ExpertError(f"The service refused to answer: {_short(refusal)}")
        why = " before it wrote any answer" if reason == "length" else ""
        only = " but for a thought" if self.usage.thought else ""
        return ExpertError(
            f"The service's reply is empty{only}{why} (finish_reason {self.finish_reason})."
        )


def _call(call: object) -> WrittenCall:
    function = _get(call, "function")
    arguments = _get(function, "arguments")
    if not isinstance(arguments, str):  # Ollama's own form has an object
        arguments = "{}" if arguments is None else json.dumps(arguments, default=str)
    return WrittenCall(_text(_get(function, "name")), arguments.strip() or "{}")


def usage_of(sent: object) -> Usage:
    """Read the tokens, and the price where the provider says it, from a completion's `usage`."""
    cost_usd = _cost_usd(sent)
    read = _count(_get(sent, "prompt_tokens"), _get(sent, "input_tokens"))
    written = _count(_get(sent, "completion_tokens"), _get(sent, "output_tokens"))
    total = _count(_get(sent, "total_tokens"))
    if total is not None and (read is None) != (written is None):
        read, written = (
            (max(0, total - (written or 0)), written)
            if read is None
            else (read, max(0, total - read))
        )
    return Usage(
        prompt_tokens=read or 0,
        completion_tokens=written or 0,
        known=read is not None and written is not None,
        cost_usd=cost_usd,
    )


def _cost_usd(sent: object) -> float | None:
    """The price in US dollars, as OpenRouter and LiteLLM (`cost`), Perplexity (`cost.total_cost`),
    DeepInfra (`estimated_cost`) and xAI (`cost_in_usd_ticks`) say it."""
    cost = _get(sent, "cost")
    paid = _amount(cost if _amount(cost) is not None else _get(cost, "total_cost"))
    if paid is not None and _get(sent, "is_byok") is True:  # the upstream bills the user's own key
        paid += _amount(_get(_get(sent, "cost_details"), "upstream_inference_cost")) or 0.0
    if paid is None:
        paid = _amount(_get(sent, "estimated_cost"))
    if paid is None and (ticks := _amount(_get(sent, "cost_in_usd_ticks"))) is not None:
        paid = ticks / 1e10
    return paid


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def _count(*values: object) -> int | None:
    """The first that is a number of tokens. A ledger's column holds 63 bits."""
    for value in values:
        amount = _amount(int(value) if isinstance(value, str) and value.isdecimal() else value)
        if amount is not None and amount < 2**53:
            return int(amount)
    return None


def _get(thing: object, name: str) -> object:
    if isinstance(thing, Mapping):
        return thing.get(name)
    found: object = getattr(thing, name, None)
    return found


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_text(item) for item in value)
    for name in ("value", "text"):
        if isinstance(inner := _get(value, name), str):
            return inner
    return ""


def _short(said: object) -> str:
    return redact(" ".join(str(said).split()))[:200]
