"""An expert behind any OpenAI-compatible chat endpoint: hosted services, vLLM, transformers.

`calling.py` retries, so the SDK's own retries are off: two layers would multiply. Redirects are
never followed, since a query must not reach a host that nobody named. A reply's body is read only
up to a limit.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from langchain_core.tools import BaseTool, StructuredTool

from eapo_agents.errors import ExpertError, ExpertSetupError, TransientExpertError, UsageError
from eapo_agents.experts.chat_reply import ChatReply
from eapo_agents.experts.listening import Listener, current_listener
from eapo_agents.experts.usage import Usage
from eapo_agents.per_loop import PerLoop
from eapo_agents.secrets import RedactedStream, read_key, redact

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 3600.0
"""The expert's own timeout ends calls; this one only closes connections that outlived it."""


def openai_chat_tools(
    name: str,
    *,
    model: str,
    base_url: str | Sequence[str] | None = None,
    api_key_env: str | None = None,
    system_prompt: str = "",
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = 1024,
    extra_body: Mapping[str, object] | None = None,
    description: str | None = None,
) -> list[BaseTool]:
    """Make one tool per `base_url`; None means OpenAI's service, or OPENAI_BASE_URL.

    The key comes from the environment variable `api_key_env`, which is OPENAI_API_KEY if there is
    no `base_url`. A `base_url` gets no key unless `api_key_env` names one.

    Raises:
        UsageError: the key is not set, or a URL cannot be used.
    """
    urls = [base_url] if base_url is None or isinstance(base_url, str) else list(base_url)
    if not urls:
        raise UsageError(
            f"The base_url of expert '{name}' is an empty list: name a URL, or leave base_url out."
        )
    for url in urls:
        check_url(url, f"The base_url of expert '{name}'")
    variable = api_key_env or ("OPENAI_API_KEY" if base_url is None else None)
    key = read_key(variable, wanted_by=f"Expert '{name}'") if variable else "none"
    request: dict[str, object] = {"model": model}
    settings = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens}
    request.update({k: v for k, v in settings.items() if v is not None})
    if extra_body:
        request["extra_body"] = dict(extra_body)
    told = description or f"the model {model.rstrip('/').rpartition('/')[2]}"
    return [_tool(name, told, url, key, system_prompt, request) for url in urls]


def _tool(
    name: str,
    description: str,
    url: str | None,
    key: str,
    system_prompt: str,
    request: Mapping[str, object],
) -> BaseTool:
    clients = PerLoop(lambda: make_client(url, key))

    async def ask(query: str) -> tuple[str, Usage]:
        messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        messages.append({"role": "user", "content": query})
        listener = current_listener()
        create = clients.get().chat.completions.create
        try:
            if listener is None:
                return _read(await create(messages=messages, **request))  # type: ignore[call-overload]
            options = {"stream": True, "stream_options": {"include_usage": True}}
            return await _read_stream(
                await create(messages=messages, **request, **options),  # type: ignore[call-overload]
                listener,
            )
        except ExpertError:
            raise
        except Exception as error:  # the SDK also raises what its JSON and HTTP libraries raise
            raise explain(error) from error

    return StructuredTool.from_function(
        coroutine=ask,
        name=name,
        description=description,
        response_format="content_and_artifact",
    )


def make_client(url: str | None, key: str) -> AsyncOpenAI:
    """Return a client that neither retries nor follows redirects, nor reads without end."""
    import httpx2
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient

    from eapo_agents.experts.limited_body import limit_body

    return AsyncOpenAI(
        base_url=url,
        api_key=key,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(
            follow_redirects=False,
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            event_hooks={"response": [limit_body]},
        ),
    )


def _read(completion: object) -> tuple[str, Usage]:
    """Return the reply's text and usage."""
    reply = ChatReply()
    try:
        reply.add(completion)
    except ExpertError as error:
        raise reply.billed(error) from error
    return reply.answer()


async def _read_stream(stream: Any, listener: Listener) -> tuple[str, Usage]:
    """Read a streamed reply and pass its pieces, with the thought, to the listener."""
    reply, shown = ChatReply(), RedactedStream(listener)
    try:
        async with stream:
            async for chunk in stream:
                shown(reply.add(chunk, piece=True))
        shown.end()
    except ExpertError as error:
        raise reply.billed(error) from error
    except Exception as error:
        raise reply.billed(explain(error)) from error
    return reply.answer(streamed=True)


def explain(error: Exception) -> ExpertError:
    """Turn the SDK's error into one of ours: transient or not, with a short reason without keys."""
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APITimeoutError):
        return TransientExpertError("The service does not answer.")
    if isinstance(error, APIConnectionError):
        cause = error.__cause__
        if isinstance(cause, ExpertError):
            return cause
        return TransientExpertError(f"The connection failed: {_short(cause or error)}")
    if isinstance(error, APIStatusError):
        return _explain_status(error)
    # what the SDK cannot read: broken JSON, a wrong encoding, a body that is not an object
    return TransientExpertError(f"The service's reply cannot be read: {_short(error)}")


def _explain_status(error: APIStatusError) -> ExpertError:
    status = error.status_code
    said = f"HTTP {status}: " + _short(error).removeprefix(f"Error code: {status} - ")
    if error.code == "insufficient_quota":
        return ExpertSetupError(said)
    return explain_status(status, said, error.response.headers)


def explain_status(status: int, said: str, headers: Mapping[str, str]) -> ExpertError:
    """Return the error of an HTTP status: transient, of the setup, or the query's own."""
    if 300 <= status < 400:
        return ExpertError(f"HTTP {status}: a redirect, and redirects are not followed.")
    if status in (401, 403, 404):
        return ExpertSetupError(said)
    if status in (408, 409, 429) or status >= 500:
        wait_s = _retry_after_s(headers)
        return TransientExpertError(said, wait_s, rate_limited=status == 429)
    return ExpertError(said)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After, which holds seconds or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _short(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return redact(said)[:200]


def check_url(url: str | None, what: str) -> None:
    """Raise UsageError where a URL cannot be used; `what` names it in the message."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            f"{what} must be an http or https URL such as http://localhost:8000/v1, got '{url}'."
        )
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"{what} must not hold a user, password or query, since recipes are printed and "
            "saved: put the key into an environment variable, and name that in the recipe."
        )
