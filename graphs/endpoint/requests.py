"""What clients of the endpoint send, in the words of OpenAI's chat completions: read, or refused
with a reason. Nothing that would change what is sampled is ignored."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_CHOICES = 64


class RequestError(Exception):
    """A request that cannot be followed: one sentence, and the HTTP status."""

    def __init__(self, message: str, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Called(BaseModel):
    name: str
    arguments: str = ""


class _Call(BaseModel):
    id: str
    type: Literal["function"] = "function"
    function: _Called


class _Message(BaseModel):
    """Clients send further keys back that our replies never had, such as `refusal`."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class _Function(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=128)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})


class _Tool(BaseModel):
    type: Literal["function"]
    function: _Function


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """A request for a chat completion."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: list[_Message] = Field(min_length=1)
    tools: list[_Tool] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: Literal[True] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    presence_penalty: float | None = Field(None, ge=0, le=0)
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    stop: list[str] | None = Field(None, max_length=0)
    # of no effect on what is sampled
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def arguments(self) -> dict[str, float | int]:
        """The sampling settings that the request gives, by LangChain's names."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_completion_tokens or self.max_tokens,
        }
        return {name: value for name, value in given.items() if value is not None}

    @property
    def offered(self) -> list[dict[str, Any]]:
        """The client's tools, as the policy is told them."""
        if self.tool_choice == "none":
            return []
        return [tool.model_dump() for tool in self.tools or ()]


_WHY = {
    "stop": "stop strings would cut between tokens: the policy ends its turns itself",
    "tool_choice": "a sampled policy cannot be forced to call a tool",
    "parallel_tool_calls": "how many calls a turn has is the policy's choice",
    "response_format": "nothing forces what a policy writes",
    "logprobs": "the logprobs are in the trace",
    "logit_bias": "it would sample from another distribution than the trainer's",
    "presence_penalty": "it would sample from another distribution than the trainer's",
    "frequency_penalty": "it would sample from another distribution than the trainer's",
}


def read_request(body: bytes) -> ChatRequest:
    """Return a request.

    Raises:
        RequestError: it is no JSON, a value is not allowed, or a setting is not followed here.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"The body must be JSON: {error}.") from error
    if not isinstance(data, dict):
        raise RequestError("The body must be a JSON object.")
    try:
        return ChatRequest.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        key = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            raise RequestError(f"'{where}' is not followed here: leave it out.") from None
        why = f"; {_WHY[key]}" if key in _WHY else ""
        raise RequestError(f"'{where}': {first['msg']}{why}.") from None


def messages_of(request: ChatRequest) -> list[BaseMessage]:
    """Return a request's messages as LangChain's.

    Raises:
        RequestError: a message has a part that is no text, or a tool's reply no call.
    """
    return [_message(message, index) for index, message in enumerate(request.messages)]


def _message(given: _Message, index: int) -> BaseMessage:
    text = _text(given.content, index)
    if given.role in ("system", "developer"):
        return SystemMessage(text)
    if given.role == "user":
        return HumanMessage(text)
    if given.role == "tool":
        if not given.tool_call_id:
            raise RequestError(f"messages[{index}] is a tool's reply without a tool_call_id.")
        return ToolMessage(text, tool_call_id=given.tool_call_id, name=given.name)
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for call in given.tool_calls or ():
        name, written = call.function.name, call.function.arguments
        try:
            arguments = json.loads(written or "{}")
        except (ValueError, RecursionError):
            arguments = None
        if isinstance(arguments, dict):
            calls.append(ToolCall(type="tool_call", name=name, args=arguments, id=call.id))
        else:
            invalid.append(
                InvalidToolCall(
                    type="invalid_tool_call", name=name, args=written, id=call.id, error=None
                )
            )
    return AIMessage(text, tool_calls=calls, invalid_tool_calls=invalid)


def _text(content: str | Sequence[Mapping[str, Any]] | None, index: int) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise RequestError(
                f"messages[{index}] has a part of type '{part.get('type')}', and the policy reads "
                "text: put what it shows into words."
            )
    return "\n".join(part["text"] for part in content)
