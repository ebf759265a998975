"""The policy's vLLM servers: which one a request goes to, and what becomes of it when one dies.

A group's rollouts share their prompt, so they go to one server, where its prefix is cached: the one
with the fewest requests in flight when the group begins. A request whose server dies is sent to
another. Where all are gone, requests wait for one to come back, up to a limit.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2

from eapo_agents.errors import EngineError, EngineLostError, ServerError
from eapo_agents.per_loop import PerLoop
from eapo_agents.secrets import redact

CONNECT_TIMEOUT_S = 10.0
ASKED_TIMEOUT_S = 60.0
"""For questions about a server itself; loading an adapter is one of them."""
CHECK_EVERY_S = 1.0
"""How often a server that is down is looked at."""
MAX_SERVER_ERRORS = 3
"""A request at which servers fail so often is at fault itself."""
_REMEMBERED_GROUPS = 65_536


class _NotServedError(Exception):
    """The server does not have the model (any more): the body of its 404."""


class _BusyError(Exception):
    """The server asks to come again later."""


class _DownError(Exception):
    """The server did not take the request, or gave it up."""

    def __init__(self, reason: str, *, answered: bool) -> None:
        super().__init__(reason)
        self.answered = answered
        """Whether it said so itself, with a server error."""


@dataclass(slots=True, eq=False)
class Server:
    """One server and what is known of it."""

    url: str
    """Without the /v1."""
    in_flight: int = 0
    down: str | None = None
    """Why it is taken to be down, None where it is up."""
    checked_at: float = 0.0
    max_length: int = 0
    """Longest prompt and completion together, in tokens."""
    loaded: set[str] = field(default_factory=set)
    """Adapters that were loaded here by this process."""

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Counts a request."""
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
        """Nothing is sent yet.

        Args:
            urls: each with or without /v1.
            key: sent as bearer token.
            request_timeout_s: a server that is silent for so long in one request is taken to be
                down.
            server_wait_s: how long requests wait for a server while all are down.
            on_return: told a server that is up again, and may have been started anew.

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
        """Servers that are taken to be up."""
        return [server for server in self.servers if server.down is None]

    def ask(
        self, server: Server, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, Any]:
        """Asks a server something about itself; GET without a body. Returns status and JSON (or
        text).

        Raises:
            ServerError: it does not answer.
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
                "`eapo serve`, or mend policy.servers."
            ) from error
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, response.text

    async def complete(
        self, body: Mapping[str, Any], *, group: object, reload: Callable[[Server], None]
    ) -> Any:
        """POST /v1/completions until some server has answered it; returns the JSON.

        Args:
            group: requests of one group go to one server.
            reload: called (in a thread) where a server does not have the model; then it is asked
                again.

        Raises:
            EngineError: the request itself is refused, or three servers failed at it.
            EngineLostError: no server is up for too long.
        """

        async def send(server: Server) -> Any:
            response = await self._clients.get().post(server.url + "/v1/completions", json=body)
            return _read(response.status_code, response.content)

        return await self._somewhere(send, group, reload)

    async def stream(
        self,
        body: Mapping[str, Any],
        on_piece: Callable[[Any], None],
        *,
        group: object,
        reload: Callable[[Server], None],
    ) -> None:
        """The same with the answer in pieces, each of which is told. A stream that breaks off is
        not begun anew, since its pieces have been told already."""
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
        self, send: Callable[[Server], Any], group: object, reload: Callable[[Server], None]
    ) -> Any:
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
                if not error.answered or not await self._is_healthy(server):
                    self._mark_down(server, str(error))
            except (httpx2.HTTPError, OSError) as error:
                self._mark_down(server, _short(error))

    async def _choose(self, group: object) -> Server:
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
                    "start one again with `eapo serve`, and give the same command to go on."
                )
            await asyncio.sleep(CHECK_EVERY_S / 2)
            await self._look_after_the_down()

    async def _look_after_the_down(self) -> None:
        """Looks whether servers have come back; one request does that for all."""
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
            # less than the 5 s after which vLLM closes an idle connection
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=None, keepalive_expiry=3.0
            ),
        )


def _read(status: int, content: bytes) -> Any:
    """The JSON of an answer, or what is wrong with it."""
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if status == 200 and isinstance(found, dict):
        return found
    said = told_error(found) or redact(content[:200].decode(errors="replace"))
    if status == 404 and "does not exist" in said:
        raise _NotServedError(said)
    if status == 429:
        raise _BusyError(said)
    if status == 200 or status == 408 or status >= 500:
        raise _DownError(f"HTTP {status}: {said}", answered=True)
    raise EngineError(f"The policy server refuses a request (HTTP {status}: {said}).")


def told_error(found: Any) -> str:
    """The message in an error's JSON, in one line."""
    error = found.get("error", found) if isinstance(found, dict) else {}
    said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return redact(" ".join(str(said or "").split()))[:300]


async def _pieces(lines: AsyncIterator[str]) -> AsyncIterator[Any]:
    """The JSON of server-sent events, up to [DONE]."""
    async for line in lines:
        if not line.startswith("data:"):
            continue
        said = line.removeprefix("data:").strip()
        if said == "[DONE]":
            return
        try:
            piece = json.loads(said)
        except ValueError as error:
            raise _DownError("its stream is no JSON", answered=True) from error
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
