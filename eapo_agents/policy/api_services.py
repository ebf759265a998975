"""Where an API model is asked: an OpenAI-compatible endpoint, or a LangChain chat model of a
user's. Each is a tool, as an expert is, so that `experts/calling.py` does everything around a call.

A turn comes back as JSON: `experts/calling.py` hands on text, without keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ToolCall,
    ToolMessage,
    convert_to_openai_messages,
)
from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import (
    ExpertError,
    ExpertSetupError,
    ServerError,
    TransientExpertError,
    UsageError,
    infrastructure_of,
)
from eapo_agents.experts.chat_reply import ChatReply, Written, WrittenCall
from eapo_agents.experts.openai_chat import explain, explain_status, make_client
from eapo_agents.experts.usage import Usage
from eapo_agents.per_loop import PerLoop
from eapo_agents.registry import describe, import_object
from eapo_agents.types import Sampling

POLICY = "policy"
"""The ledger's name for an API model that is the policy."""
_LOOK_S = 10.0
_UNSENT = "Not sent."
_OPENAI_HOSTS = (".openai.com", ".openai.azure.com")
"""Their newer models take `max_completion_tokens` alone; other servers know `max_tokens`."""
_LENGTH_FIELDS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
_FINISH_FIELDS = ("finish_reason", "stop_reason", "stopReason", "done_reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One turn that a service is asked for."""

    messages: Sequence[BaseMessage]
    tools: Sequence[Mapping[str, object]]
    tool_choice: str | None
    sampling: Sampling


def read_written(text: str) -> Written:
    """Return the turn that a service's tool has sent as text."""
    found = json.loads(text)
    return Written(
        content=found["content"],
        calls=[WrittenCall(*call) for call in found["calls"]],
        finish_reason=found["finish_reason"],
    )


def _sent(reply: ChatReply) -> tuple[str, Usage]:
    written, usage = reply.turn()
    return json.dumps(asdict(written), ensure_ascii=False), usage


def endpoint_tool(
    url: str, model: str, key: str | None, extra_body: Mapping[str, object]
) -> BaseTool:
    """Return the tool that asks an endpoint for a turn."""
    clients = PerLoop(lambda: make_client(url, key or "none"))
    host = urlsplit(url).hostname or ""
    length = "max_completion_tokens" if f".{host}".endswith(_OPENAI_HOSTS) else "max_tokens"

    async def ask(request: Any) -> tuple[str, Usage]:
        sampling: Sampling = request.sampling
        body: dict[str, Any] = {
            "model": model,
            "messages": convert_to_openai_messages(clean_history(request.messages)),
            "temperature": sampling.temperature,
            length: sampling.max_new_tokens,
        }
        if sampling.top_p != 1:
            body["top_p"] = sampling.top_p
        if request.tools:
            body["tools"] = list(request.tools)
        if request.tools and request.tool_choice is not None:
            body["tool_choice"] = _choice(request.tool_choice)
        if extra_body:
            body["extra_body"] = dict(extra_body)
        reply = ChatReply()
        try:
            reply.add(await clients.get().chat.completions.create(**body))
        except ExpertError as error:
            raise reply.billed(error) from error
        except Exception as error:  # the SDK also raises what its JSON and HTTP libraries raise
            raise explain(error) from error
        return _sent(reply)

    return _tool(ask)


def chat_model_tool(name: str) -> BaseTool:
    """Return the tool that asks a user's chat model for a turn.

    Raises:
        UsageError: there is no such object, or it is something else.
    """
    model = find_chat_model(name)

    async def ask(request: Any) -> tuple[str, Usage]:
        asked = sampling_as(model, request.sampling)
        bound: Any = asked
        try:
            if request.tools:
                choice = {} if request.tool_choice is None else {"tool_choice": request.tool_choice}
                bound = asked.bind_tools([dict(tool) for tool in request.tools], **choice)
            # the policy's own model reports to the callbacks: not a second time, nor with a thought
            message = await bound.ainvoke(clean_history(request.messages), {"callbacks": []})
        except ExpertError:
            raise
        except Exception as error:  # any library's
            raise _explained(error, name) from error
        reply = ChatReply()
        reply.add(_as_completion(message))
        return _sent(reply)

    return _tool(ask)


def _tool(ask: Any) -> BaseTool:
    return StructuredTool.from_function(
        coroutine=ask,
        name=POLICY,
        description="The API model that is the policy.",
        response_format="content_and_artifact",
    )


def find_chat_model(name: str) -> BaseChatModel:
    """Return the chat model of that name, `package.module:object`: a LangChain chat model, or a
    function that returns one.

    Raises:
        UsageError: there is no such object, or it is something else.
    """
    found = import_object(name, what="policy.chat_model")
    if callable(found) and not isinstance(found, BaseChatModel):
        try:
            found = found()
        except Exception as error:  # a user's function may raise anything
            raise UsageError(
                f"The policy.chat_model '{name}' cannot be made: {type(error).__name__}: {error}"
            ) from error
    if not isinstance(found, BaseChatModel):
        raise UsageError(
            f"The policy.chat_model '{name}' must be a LangChain chat model (BaseChatModel), or a "
            f"function that returns one, and it is {describe(found)}."
        )
    # each rollout is a sample of its own, whatever cache LangChain has
    return found.model_copy(update={"cache": False})


def sampling_as(model: BaseChatModel, sampling: Sampling) -> BaseChatModel:
    """Return a chat model that samples as a recipe says, as far as it has fields for that."""
    wanted = {"temperature": sampling.temperature, _length_field(model): sampling.max_new_tokens}
    if sampling.top_p != 1:
        wanted["top_p"] = sampling.top_p
    known = type(model).model_fields
    return model.model_copy(update={k: v for k, v in wanted.items() if k in known})


def unfollowed(model: BaseChatModel) -> list[str]:
    """Return the settings of a recipe's sampling that a chat model has no field for."""
    known = type(model).model_fields
    fields = {"temperature": "temperature", "max_new_tokens": _length_field(model)}
    return [setting for setting, field in fields.items() if field not in known]


def _length_field(model: BaseChatModel) -> str:
    known = type(model).model_fields
    return next((field for field in _LENGTH_FIELDS if field in known), "")


def clean_history(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Return the messages as a service gets them: text, calls and replies, without thoughts or
    records. A service wants a call for each reply, and a reply for each call: a call that could not
    be read is an object that has its text, and one that was never sent is answered so."""
    replied = {m.tool_call_id for m in messages if isinstance(m, ToolMessage)}
    found: list[BaseMessage] = []
    for message in messages:
        found.append(_clean(message))
        if isinstance(message, AIMessage):
            calls = [*message.tool_calls, *message.invalid_tool_calls]
            unsent = [call["id"] for call in calls if call["id"] not in replied]
            found += [ToolMessage(_UNSENT, tool_call_id=_id(name)) for name in unsent]
    return found


def _id(call_id: str | None) -> str:
    """Return a call's id in the one form that every service takes: Mistral's wants nine letters or
    digits."""
    return hashlib.blake2b(str(call_id).encode()).hexdigest()[:9]


def _clean(message: BaseMessage) -> BaseMessage:
    text = str(message.text)
    if isinstance(message, ToolMessage):
        return ToolMessage(text, tool_call_id=_id(message.tool_call_id), name=message.name)
    if isinstance(message, AIMessage):
        calls = [ToolCall(**{**call, "id": _id(call["id"])}) for call in message.tool_calls]
        for call in message.invalid_tool_calls:
            unread = {"unreadable": call["args"] or ""}
            name = call["name"] or "unknown"
            calls.append(ToolCall(type="tool_call", name=name, args=unread, id=_id(call["id"])))
        return AIMessage(text, tool_calls=calls)
    return message.model_copy(
        update={"content": text, "additional_kwargs": {}, "response_metadata": {}}
    )


def _choice(choice: str) -> object:
    if choice in ("auto", "required"):
        return choice
    return "required" if choice == "any" else {"type": "function", "function": {"name": choice}}


def _as_completion(message: AIMessage) -> dict[str, object]:
    """Return a chat model's message in the form in which services send theirs."""
    told, more = message.response_metadata, message.additional_kwargs
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    calls += [(call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls]  # type: ignore[misc]
    usage = told.get("token_usage") or told.get("usage") or {}
    counted = message.usage_metadata
    if counted is not None:
        paid = dict(usage) if isinstance(usage, Mapping) else {}
        usage = {**paid, "prompt_tokens": counted["input_tokens"]}
        usage["completion_tokens"] = counted["output_tokens"]
    sent = {
        "content": message.content,
        "tool_calls": [{"function": {"name": n, "arguments": a}} for n, a in calls],
        **{name: more.get(name) for name in ("reasoning_content", "reasoning", "refusal")},
    }
    finish = next((told[field] for field in _FINISH_FIELDS if told.get(field)), "stop")
    return {"choices": [{"message": sent, "finish_reason": finish}], "usage": usage}


def _explained(error: Exception, name: str) -> ExpertError:
    """Turn what a chat model's library raises into one of ours."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, NotImplementedError):
        return ExpertSetupError(f"'{name}' takes no tools (its bind_tools is not implemented).")
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        return explain_status(status, said, getattr(response, "headers", {}))
    if infrastructure_of(error):
        return TransientExpertError(said)
    return ExpertError(said)


def reach_endpoint(url: str, key: str | None) -> None:
    """Make sure that something answers at an endpoint, and takes the key. Costs nothing.

    Raises:
        ServerError: nothing answers, or the key is refused.
    """
    from openai import APIStatusError, DefaultHttpxClient, OpenAI

    try:
        with OpenAI(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            http_client=DefaultHttpxClient(follow_redirects=False, timeout=_LOOK_S),
        ) as client:
            client.models.list()
    except APIStatusError as error:
        if error.status_code not in (401, 403):
            return  # it answers; not every service lists its models
        raise ServerError(
            f"The policy's endpoint {url} refuses the key ({explain(error)}): "
            "name the right variable in policy.endpoint.key_env."
        ) from error
    except Exception as error:  # the SDK also raises what its JSON and HTTP libraries raise
        reason = explain(error)
        if str(reason).startswith("The service's reply cannot be read"):
            return
        raise ServerError(
            f"The policy's endpoint {url} cannot be reached ({reason}): start its server, or "
            "correct policy.endpoint.url."
        ) from error
