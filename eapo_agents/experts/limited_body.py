"""Reads a response's body up to a limit, so that a service cannot fill the memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2

from eapo_agents.errors import ExpertError

MAX_BODY_BYTES = 4_000_000


class LimitedStream(httpx2.AsyncByteStream):
    """A body that raises an ExpertError when it becomes too long."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_BODY_BYTES:
                raise ExpertError(f"The reply is longer than {MAX_BODY_BYTES:,} bytes.")
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def limit_body(response: httpx2.Response) -> None:
    """Limit the body of a response; a client's response hook."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = LimitedStream(response.stream)
