"""The endpoint's HTTP side."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from eapo_agents.errors import BudgetError, EapoError, EngineLostError, UsageError
from eapo_agents.secrets import redact
from graphs.endpoint.answering import Answering
from graphs.endpoint.replies import Heading
from graphs.endpoint.requests import RequestError, read_request

SESSION, PROBLEM = "x-eapo-session", "x-eapo-problem"
"""Headers: the session that a request belongs to, and the problem that it works on."""
MAX_BODY = 32 * 1024 * 1024
_LOOK_S = 5.0
"""Seconds between two looks for sessions that have ended by themselves."""
_NAME = re.compile(r"[\w.:/+@=-]{1,200}")
_LOG = logging.getLogger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]


class _Given(BaseModel):
    """What a client says at a session's end."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reward: float | None = Field(None, allow_inf_nan=False)
    correct: bool | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The routes of the endpoint."""

    answering: Answering
    model: str
    """Name of the policy for clients."""
    key: str | None
    """What clients must send; None: nothing, on this machine alone."""

    def app(self) -> Starlette:
        """Return the application. As it ends, so do the sessions."""
        return Starlette(
            routes=[
                Route("/health", self._guarded(self._health), methods=["GET"]),
                Route("/v1/models", self._guarded(self._models), methods=["GET"]),
                Route("/v1/chat/completions", self._guarded(self._complete), methods=["POST"]),
                Route(
                    "/v1/sessions/{name:path}/reward", self._guarded(self._end), methods=["POST"]
                ),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async def look() -> None:
            while True:
                await asyncio.sleep(_LOOK_S)
                try:
                    await self.answering.sessions.end_idle()
                except Exception as error:  # such as a full disk: the session stays, for later
                    _LOG.error("%s", error)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking
            await self.answering.sessions.end_all()

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: Request) -> Response:
            try:
                self._let_in(request)
                return await handler(request)
            except Exception as error:
                return _refusal(error)

        return guarded

    def _let_in(self, request: Request) -> None:
        """Raise RequestError for a client without the key; without one, for a web page of
        elsewhere that reaches this machine through its user's browser."""
        if self.key is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.key.encode()):
                raise RequestError("The key is missing or wrong.", status=401)
            return
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host")
        if host not in ("127.0.0.1", "localhost", "[::1]") or "origin" in request.headers:
            raise RequestError(
                "Without a key only programs on this machine are served, not web pages.", status=403
            )

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "sessions": len(self.answering.sessions.open)})

    async def _models(self, request: Request) -> Response:
        model = {"id": self.model, "object": "model", "created": 0, "owned_by": "eapo-agents"}
        return JSONResponse({"object": "list", "data": [model]})

    async def _complete(self, request: Request) -> Response:
        wanted = read_request(await _body(request))
        if wanted.model != self.model:
            raise RequestError(
                f"There is no model '{wanted.model}': this is '{self.model}'.",
                status=404,
                code="model_not_found",
            )
        name, problem = _name_in(request), request.headers.get(PROBLEM)
        # percent-encoded where it is more than ASCII
        problem_id = None if problem is None else unquote(problem)
        session, messages = self.answering.session_of(wanted, name, problem_id)
        heading = Heading.of(f"{session.id}-{len(session.messages)}", self.model)
        headers = {SESSION: session.id}
        if wanted.stream:
            pieces = self.answering.stream(session, wanted, messages, heading)
            first = await anext(pieces)
            return StreamingResponse(
                _events(first, pieces), media_type="text/event-stream", headers=headers
            )
        choices = await self.answering.choices(session, wanted, messages)
        return JSONResponse(heading.completion(choices), headers=headers)

    async def _end(self, request: Request) -> Response:
        body = await _body(request)
        try:
            given = _Given.model_validate_json(body or b"{}")
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise RequestError(f"'{where}': {first['msg']}.") from None
        name = request.path_params["name"]
        ended = await self.answering.sessions.end(name, given.model_dump())
        return JSONResponse(asdict(ended))


async def _events(first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    yield f"data: {json.dumps(first)}\n\n"
    try:
        async for piece in rest:
            yield f"data: {json.dumps(piece)}\n\n"
    except Exception as error:  # the reply has begun: it is told in the stream
        yield f"data: {json.dumps(_told(error)[1])}\n\n"
    else:
        yield "data: [DONE]\n\n"


async def _body(request: Request) -> bytes:
    """Return the body.

    Raises:
        RequestError: it is too large.
    """
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > MAX_BODY:
            raise RequestError(f"The body is larger than {MAX_BODY} bytes.", status=413)
    return bytes(found)


def _name_in(request: Request) -> str | None:
    value = request.headers.get(SESSION)
    if value is not None and not _NAME.fullmatch(value):
        raise RequestError(
            f"The header {SESSION} must be 1 to 200 letters, digits or ._:/+@=- characters."
        )
    return value


def _refusal(error: Exception) -> Response:
    status, told = _told(error)
    return JSONResponse(told, status_code=status)


def _told(error: Exception) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of an error, as OpenAI's clients read it."""
    code: str | None = None
    if isinstance(error, RequestError):
        status, code = error.status, error.code
    elif isinstance(error, BudgetError):
        status, code = 429, "insufficient_quota"
    elif isinstance(error, EngineLostError):
        status = 503
    elif isinstance(error, UsageError | ValueError):
        status = 400
    else:
        status = 500
    if status == 500 and not isinstance(error, EapoError):
        message = f"{type(error).__name__} in the endpoint: its log says more."
        _LOG.exception("A request failed.", exc_info=error)
    else:
        message = redact(str(error))
    kind = "invalid_request_error" if status < 500 else "server_error"
    return status, {"error": {"message": message, "type": kind, "param": None, "code": code}}
