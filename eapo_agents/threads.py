"""Threads that do not keep the program from ending, for what blocks and for who may not wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T]) -> T:
    """Return what a blocking call returns, or raise what it raises. Cancelling stops the wait; the
    call runs on.

    An event loop's own executor would not do: a loop that ends waits for it, so one call that hangs
    would hang the program whatever its time limit.
    """
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if reply.done():
            return  # cancelled: nobody waits any longer
        if error is not None:
            reply.set_exception(error)
        else:
            reply.set_result(result)  # type: ignore[arg-type]  # None only where T has it

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # passed to the loop's thread, which must not end by it
            failure = error if isinstance(error, Exception) else RuntimeError(repr(error))
        with suppress(RuntimeError):  # the loop may have ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=copy_context().run, args=(run,), daemon=True).start()
    return await reply


class LoopThread:
    """An event loop in a thread of its own, in which blocking callers run coroutines: what is per
    loop, such as clients and rate limits, they share."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine to its end, in the caller's context."""
        if threading.current_thread() is self._thread:  # one that the loop runs asks it itself
            return _in_own_thread(make)
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
                self._thread.start()
        future = asyncio.run_coroutine_threadsafe(make(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def _in_own_thread(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(copy_context().run, lambda: asyncio.run(make())).result()
