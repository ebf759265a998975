"""Threads in the place of processes, which the sandbox does not allow.

A program that computes with `multiprocessing` or `ProcessPoolExecutor` gets the same results.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_NAMES = (
    *("Process", "Queue", "JoinableQueue", "Lock", "RLock", "Semaphore", "BoundedSemaphore"),
    *("Condition", "Event", "Barrier", "Manager", "Value", "Array", "Pipe"),
)


def use_threads() -> None:
    """Change the modules that are loaded."""
    if "multiprocessing.dummy" in sys.modules:
        _change_multiprocessing()
    if "concurrent.futures.process" in sys.modules:
        import concurrent.futures

        class ProcessPoolExecutor(concurrent.futures.ThreadPoolExecutor):
            """Takes what the real one takes."""

            def __init__(self, max_workers: int | None = None, *args: Any, **more: Any) -> None:
                more = {k: v for k, v in more.items() if k in ("initializer", "initargs")}
                super().__init__(max_workers, **more)

        concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[assignment,misc]


class _Result:
    """What `apply_async` and the like return; the work is done already."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._error: Exception | None = None
        self._value: object = None
        try:
            self._value = work()
        except Exception as error:
            self._error = error

    def get(self, timeout: float | None = None) -> object:
        if self._error is not None:
            raise self._error
        return self._value

    def wait(self, timeout: float | None = None) -> None:
        pass

    def ready(self) -> bool:
        return True

    def successful(self) -> bool:
        return self._error is None


class _Pool:
    """A pool that does each piece of work at once, in the order in which it comes."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[object] = (),
        *_: object,
        **__: object,
    ) -> None:
        if initializer is not None:
            initializer(*initargs)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def apply(self, function: Any, args: Any = (), kwds: Any = None) -> object:
        return function(*args, **(kwds or {}))

    def map(self, function: Any, items: Any, chunksize: Any = None) -> list[object]:
        return [function(item) for item in items]

    def starmap(self, function: Any, items: Any, chunksize: Any = None) -> list[object]:
        return [function(*item) for item in items]

    def imap(self, function: Any, items: Any, chunksize: Any = None) -> Iterator[object]:
        return iter(self.map(function, items))

    imap_unordered = imap

    def apply_async(self, function: Any, args: Any = (), kwds: Any = None, **told: Any) -> _Result:
        return _told(_Result(lambda: self.apply(function, args, kwds)), **told)

    def map_async(self, function: Any, items: Any, chunksize: Any = None, **told: Any) -> _Result:
        return _told(_Result(lambda: self.map(function, items)), **told)

    def starmap_async(self, function: Any, items: Any, chunksize: Any = None, **t: Any) -> _Result:
        return _told(_Result(lambda: self.starmap(function, items)), **t)

    def close(self) -> None:
        pass

    join = terminate = close


def _told(result: _Result, callback: Any = None, error_callback: Any = None) -> _Result:
    if result.successful() and callback is not None:
        callback(result.get())
    if not result.successful() and error_callback is not None:
        error_callback(result._error)
    return result


def _change_multiprocessing() -> None:
    import multiprocessing
    import multiprocessing.dummy as threads
    import queue

    given: dict[str, object] = {n: getattr(threads, n) for n in _NAMES if hasattr(threads, n)}
    given |= {"Pool": _Pool, "SimpleQueue": queue.SimpleQueue, "cpu_count": lambda: 1}
    given["get_context"] = lambda method=None: multiprocessing
    given["set_start_method"] = lambda method, force=False: None
    for name, value in given.items():
        setattr(multiprocessing, name, value)
