"""The policy's vLLM servers: which server gets a request, and what happens when a server dies.

The rollouts of a group share their prompt, so they all go to one server, which caches it: the
server with the fewest requests in flight when the group begins. A request whose server dies is sent
to another one. If all are down, requests wait for one to return, up to a limit.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar, cast
from urllib.parse import urlsplit

import httpx2

from eapo_agents.errors import EngineError, EngineLostError, ServerError
from eapo_agents.per_loop import PerLoop
from eapo_agents.secrets import redact

CONNECT_TIMEOUT_S = 10.0
ASKED_TIMEOUT_S = 60.0
"""For questions about a server itself, and for loading an adapter."""
CHECK_EVERY_S = 1.0
"""How often a server that is down is checked."""
MAX_SERVER_ERRORS = 3
"""A request that makes servers fail this often is refused: the fault is likely its own."""
_REMEMBERED_GROUPS = 65_536
T = TypeVar("T")


class Logprobs(TypedDict, total=False):
    """Logprobs of a completion, one entry per token."""

    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class Choice(TypedDict):
    """One completion, or a piece of one."""

    token_ids: list[int] | None
    logprobs: Logprobs | None


class Answer(TypedDict):
    """What `/v1/completions` should answer. `vllm_engine` checks it where it reads it."""

    choices: list[Choice]


class _NotServedError(Exception):
    """The server does not have the model, or has lost it: the body of its 404."""


class _BusyError(Exception):
    """The server asks us to try again later."""


class _DownError(Exception):
    """The server did not accept the request, or gave it up."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered
        """Whether the server said so itself, with a server error."""


@dataclass(slots=True, eq=False)
class Server:
    """One server and what is known about it."""

    url: str
    """Address without the /v1."""
    in_flight: int = 0
    down: str | None = None
    """Why it counts as down; None if it is up."""
    checked_at: float = 0.0
    max_length: int = 0
    """Most tokens of prompt and completion together; 0 if unknown."""
    loaded: set[str] = field(default_factory=set)
    """Adapters that this process has loaded there."""

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count a request as in flight."""
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1


class ServerPool:
    """Servers of one base model."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        key: str | None = None,
        request_timeout_s: float = 600.0,
        server_wait_s: float = 300.0,
        on_return: Callable[[Server], None] = lambda server: None,
    ) -> None:
        """Name the servers; nothing is sent yet.

        Args:
            urls: each with or without /v1.
            key: sent as bearer token.
            request_timeout_s: a server that is silent for so long in one request counts as down.
            server_wait_s: how long requests wait for a server while all are down.
            on_return: called with a server that is up again; it may have been restarted.

        Raises:
            ServerError: a URL cannot be used, or there is none.
        """
        self.servers = [Server(_base_url(url)) for url in dict.fromkeys(urls)]
        if not self.servers:
            raise ServerError("policy.servers is empty: name at least one URL.")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout_s = request_timeout_s
        self._lost_after_s = server_wait_s
        self.on_return = on_return
        self._homes: OrderedDict[object, Server] = OrderedDict()
        self._choosing = threading.Lock()
        self._clients = PerLoop(self._client)

    @property
    def up(self) -> list[Server]:
        """Servers that count as up."""
        return [server for server in self.servers if server.down is None]

    def ask(
        self, server: Server, path: str, body: Mapping[str, object] | None = None
    ) -> tuple[int, object]:
        """Ask a server something about itself: GET without a body, POST with one. Return its
        status and JSON (or text).

        Raises:
            ServerError: the server does not answer.
        """
        try:
            with httpx2.Client(headers=self._headers, timeout=ASKED_TIMEOUT_S) as client:
                response = (
                    client.get(server.url + path)
                    if body is None
                    else client.post(server.url + path, json=body)
                )
        except (httpx2.HTTPError, OSError) as error:
            raise ServerError(
                f"No policy server answers at {server.url} ({_short(error)}): start it with "
                "`eapo serve`, or correct policy.servers."
            ) from error
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, response.text

    async def complete(
        self, body: Mapping[str, object], *, group: object, reload: Callable[[Server], None]
    ) -> Answer:
        """POST /v1/completions until some server answers; return the JSON.

        Args:
            group: requests of one group go to one server.
            reload: called (in a thread) with a server that does not have the model. Then the
                server is asked again.

        Raises:
            EngineError: the request is refused, or servers have failed at it three times.
            EngineLostError: no server has been up for too long.
        """

        async def send(server: Server) -> Answer:
            response = await self._clients.get().post(server.url + "/v1/completions", json=body)
            return _read(response.status_code, response.content)

        return await self._somewhere(send, group, reload)

    async def stream(
        self,
        body: Mapping[str, object],
        on_piece: Callable[[Answer], None],
        *,
        group: object,
        reload: Callable[[Server], None],
    ) -> None:
        """Do the same with the answer in pieces, each passed to `on_piece`.

        A stream that breaks off is not started again: its pieces have been passed on already.

        Raises:
            EngineError: as `complete`, or the stream broke off.
            EngineLostError: no server has been up for too long.
        """
        begun = False

        async def send(server: Server) -> None:
            nonlocal begun
            client = self._clients.get()
            sent = client.stream("POST", server.url + "/v1/completions", json={**body, "stream": 1})
            async with sent as response:
                if response.status_code != 200:
                    _read(response.status_code, await response.aread())
                async for piece in _pieces(response.aiter_lines()):
                    begun = True
                    on_piece(piece)

        async def once(server: Server) -> None:
            try:
                await send(server)
            except (_DownError, httpx2.HTTPError) as error:
                if begun:
                    raise EngineError(
                        f"The server {server.url} broke off in the middle of an answer "
                        f"({_short(error)}): ask again."
                    ) from error
                raise

        await self._somewhere(once, group, reload)

    async def _somewhere(
        self,
        send: Callable[[Server], Awaitable[T]],
        group: object,
        reload: Callable[[Server], None],
    ) -> T:
        """Send to the group's server; to another one when it fails."""
        failures = 0
        reloaded: set[int] = set()
        while True:
            server = await self._choose(group)
            try:
                with server.busy():
                    return await send(server)
            except _NotServedError as error:
                if id(server) in reloaded:
                    raise EngineError(
                        f"The server {server.url} loses the model again and again ({error}): look "
                        "at its log."
                    ) from error
                # a server that was restarted, or that has unloaded the adapter, gets it again
                reloaded.add(id(server))
                try:
                    await asyncio.to_thread(reload, server)
                except ServerError as refused:
                    self._mark_down(server, str(refused))
            except _BusyError:
                await asyncio.sleep(CHECK_EVERY_S)
            except _DownError as error:
                failures += error.answered
                if failures >= MAX_SERVER_ERRORS:
                    raise EngineError(
                        f"The policy servers failed {failures} times at one request, last "
                        f"{server.url} ({error}): look at its log."
                    ) from error
                # a server that answers with an error and is healthy stays up for other requests
                if not error.answered or not await self._is_healthy(server):
                    self._mark_down(server, str(error))
            except (httpx2.HTTPError, OSError) as error:
                self._mark_down(server, _short(error))

    async def _choose(self, group: object) -> Server:
        """Return the group's server, or the least busy one for a new group or a dead server."""
        await self._look_after_the_down()
        deadline = time.monotonic() + self._lost_after_s
        while True:
            with self._choosing:
                home = self._homes.get(group)
                if home is None or home.down is not None:
                    up = self.up
                    home = min(up, key=lambda server: server.in_flight) if up else None
                if home is not None:
                    self._homes[group] = home
                    if len(self._homes) > _REMEMBERED_GROUPS:
                        self._homes.popitem(last=False)
                    return home
            if time.monotonic() > deadline:
                reasons = "; ".join(f"{s.url}: {s.down}" for s in self.servers)
                raise EngineLostError(
                    f"No policy server has answered for {self._lost_after_s:g} s ({reasons}): "
                    "start one again with `eapo serve`, and continue with the same command."
                )
            await asyncio.sleep(CHECK_EVERY_S / 2)
            await self._look_after_the_down()

    async def _look_after_the_down(self) -> None:
        """Check whether servers are up again; of all waiting requests, one does it for all."""
        for server in self.servers:
            with self._choosing:
                now = time.monotonic()
                due = server.down is not None and now - server.checked_at > CHECK_EVERY_S
                server.checked_at = now if due else server.checked_at
            if due and await self._is_healthy(server):
                try:
                    await asyncio.to_thread(self.on_return, server)
                except ServerError as error:
                    server.down = str(error)
                else:
                    server.down = None

    async def _is_healthy(self, server: Server) -> bool:
        try:
            response = await self._clients.get().get(server.url + "/health", timeout=5.0)
        except (httpx2.HTTPError, OSError):
            return False
        return bool(response.status_code == 200)

    def _mark_down(self, server: Server, reason: str) -> None:
        server.down = reason
        server.checked_at = time.monotonic()

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers=self._headers,
            follow_redirects=False,
            timeout=httpx2.Timeout(self._timeout_s, connect=CONNECT_TIMEOUT_S, pool=None),
            # shorter than the 5 s after which vLLM closes an idle connection
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=None, keepalive_expiry=3.0
            ),
        )


def _read(status: int, content: bytes) -> Answer:
    """Return the JSON of an answer, or raise what is wrong with it."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if status == 200 and isinstance(found, dict):
        return cast(Answer, found)
    said = told_error(found) or redact(content[:200].decode(errors="replace"))
    if status == 404 and "does not exist" in said:
        raise _NotServedError(said)
    if status == 429:
        raise _BusyError(said)
    if status == 200 or status == 408 or status >= 500:
        raise _DownError(f"HTTP {status}: {said}", answered=True)
    raise EngineError(f"The policy server refuses a request (HTTP {status}: {said}).")


def told_error(found: object) -> str:
    """Return the message in an error's JSON, in one line."""
    error = found.get("error", found) if isinstance(found, dict) else {}
    said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return redact(" ".join(str(said or "").split()))[:300]


async def _pieces(lines: AsyncIterator[str]) -> AsyncIterator[Answer]:
    """Yield the JSON of server-sent events, up to [DONE]."""
    async for line in lines:
        if not line.startswith("data:"):
            continue
        said = line.removeprefix("data:").strip()
        if said == "[DONE]":
            return
        try:
            piece = json.loads(said)
        except ValueError as error:
            raise _DownError("its stream is not JSON", answered=True) from error
        if "error" in piece:
            raise _DownError(told_error(piece), answered=True)
        yield piece
    raise _DownError("its stream ended early", answered=False)


def _base_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.username or parts.password or parts.query:
        raise ServerError(
            "policy.servers must be http or https URLs without user, password or query, such as "
            f"http://127.0.0.1:8000, got '{redact(url)}'."
        )
    return url.rstrip("/").removesuffix("/v1")


def _short(error: BaseException) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return redact(said)[:200]
