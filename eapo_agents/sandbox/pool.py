"""A pool of sandboxed processes, started before they are needed. Each runs one sample only."""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import queue
import selectors
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from eapo_agents.errors import SandboxError
from eapo_agents.sandbox.isolation import (
    CHECKER,
    INSIDE,
    WORKER,
    Isolation,
    Limits,
    Started,
    end,
    find_isolation,
)

_READ_BYTES = 1 << 20
_START_S = 60.0
_STARVED, _STARVED_S = 20.0, 20.0
"""A job is given up after this many times its limit, and so many seconds."""
_MAX_THREADS = 4
"""A sample with more threads waits for its own: its waiting counts."""


class ProcessEndedError(Exception):
    """The process in the sandbox is gone: a limit killed it, or it exited."""


class DeadlineError(Exception):
    """The process did not answer in time."""


class StarvedError(DeadlineError):
    """The process did not get a core in time: that says nothing about the sample."""


class Deadline:
    """The time that a job may take, on a machine of any load.

    What its processes wait for a core does not count, as the kernel tells it; without the kernel's
    word all time counts.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._begun = limit_s, time.monotonic()
        self._counted: list[tuple[SandboxedProcess, float]] = []

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out the time in the block: the start of a process is not the sample's doing."""
        begun = time.monotonic()
        yield
        self._begun += time.monotonic() - begun

    def count(self, process: SandboxedProcess) -> None:
        """Leave out what this process waits for a core from here on."""
        self._counted.append((process, process.waited_s()))

    def left_s(self) -> float:
        """Return the seconds that are left, below 0 where time is up.

        Raises:
            StarvedError: it gets next to no time.
        """
        left = self._limit_s - (time.monotonic() - self._begun)
        if left > 0:
            return left
        left += sum(max(0.0, process.waited_s() - before) for process, before in self._counted)
        if left > 0 and time.monotonic() - self._begun > _STARVED_S + _STARVED * self._limit_s:
            raise StarvedError
        return left


class SandboxedProcess:
    """One process in a sandbox: lines in, lines out, and every wait has a deadline."""

    def __init__(self, started: Started, output_bytes: int) -> None:
        process = started.process
        assert process.stdin is not None
        assert process.stdout is not None
        self._started = started
        self._in, self._out = process.stdin.fileno(), process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._left = output_bytes
        self._pending = bytearray()
        self._lines: list[bytes] = []

    def send(self, message: Mapping[str, object], deadline: Deadline) -> None:
        """Write one message.

        Raises:
            ProcessEndedError, DeadlineError: the process is gone, or does not read.
        """
        self.send_line(json.dumps(dict(message)).encode("ascii"), deadline)

    def send_line(self, line: bytes, deadline: Deadline) -> None:
        """Write one line; raises as `send` does."""
        data = memoryview(line + b"\n")
        while data:
            try:
                data = data[os.write(self._in, data) :]
            except BlockingIOError:
                self._wait(self._in, selectors.EVENT_WRITE, deadline)
            except OSError as error:
                raise ProcessEndedError from error

    def line(self, deadline: Deadline) -> bytes:
        """Return the next line, without its end.

        Raises:
            ProcessEndedError: the process is gone, or has written more than it may.
            DeadlineError: it does not answer.
        """
        while not self._lines:
            try:
                data = os.read(self._out, _READ_BYTES)
            except BlockingIOError:
                self._wait(self._out, selectors.EVENT_READ, deadline)
                continue
            self._left -= len(data)
            if not data or self._left < 0:
                raise ProcessEndedError
            # the last piece has no end yet: it waits in `_pending`. `_lines` is a stack, so that
            # taking the next line does not move the others
            *lines, rest = data.split(b"\n")
            if lines:
                lines[0] = bytes(self._pending) + lines[0]
                self._pending.clear()
                self._lines = lines[::-1]
            self._pending += rest
            if deadline.left_s() <= 0:  # a flood must not hold us past the deadline
                raise DeadlineError
        return self._lines.pop()

    def await_start(self) -> None:
        """Wait until the process says that it is ready.

        Raises:
            SandboxError: it does not. That is never the fault of a sample.
        """
        try:
            self.line(Deadline(_START_S))
        except (ProcessEndedError, DeadlineError) as error:
            raise SandboxError(
                "The sandbox no longer starts: check that memory and processes are free, and run "
                "the same command again."
            ) from error

    def renew(self, output_bytes: int) -> None:
        """Allow that much output from here on."""
        self._left = output_bytes

    def waited_s(self) -> float:
        """Return how long the process has waited for a core until now; 0 if that is unknown."""
        pid = self._started.process.pid
        try:
            inside = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            own = Path(f"/proc/{inside[0] if inside else pid}")
            num_threads = int((own / "stat").read_text().rpartition(")")[2].split()[17])
            waited = int((own / "schedstat").read_text().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            return 0.0
        return waited if num_threads <= _MAX_THREADS else 0.0

    def kill(self) -> None:
        """End the process and everything in its namespaces."""
        end(self._started)

    def _wait(self, fd: int, event: int, deadline: Deadline) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(fd, event)
            while (left := deadline.left_s()) > 0:
                if selector.select(left):
                    return
            raise DeadlineError


_Started = queue.Queue[SandboxedProcess | SandboxError]


class Sandbox:
    """Runs untrusted code. Thread-safe: up to `workers` samples run at once.

    Args:
        isolation: how code is isolated; by default what `find_isolation` returns.
        workers: samples at once; by default one per core.
    """

    def __init__(
        self,
        isolation: Isolation | None = None,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        compileall.compile_dir(INSIDE, quiet=2)  # once, not in every process
        self.isolation = isolation or find_isolation()
        self.limits = limits or Limits()
        self.num_workers = workers or os.cpu_count() or 1
        self._slots = threading.BoundedSemaphore(self.num_workers)
        self._workers: _Started = queue.Queue()
        self._new_checkers: _Started = queue.Queue()
        self._checkers: queue.LifoQueue[SandboxedProcess] = queue.LifoQueue()
        self._orders: queue.Queue[tuple[str, _Started] | None] = queue.Queue()
        # bubblewrap asks the kernel to kill its process when the thread that started it ends. So
        # one thread, which lives as long as the pool, starts all processes.
        self._starter = threading.Thread(target=self._start_ordered, daemon=True)
        self._starter.start()
        for _ in range(self.num_workers):
            self._orders.put((WORKER, self._workers))

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every waiting process; running samples end with their jobs."""
        self._orders.put(None)
        self._starter.join()
        for waiting in (self._workers, self._new_checkers, self._checkers):
            with contextlib.suppress(queue.Empty):
                while True:
                    found = waiting.get_nowait()
                    if isinstance(found, SandboxedProcess):
                        found.kill()

    @contextlib.contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a place to run one sample, and hold it."""
        with self._slots:
            yield

    @contextlib.contextmanager
    def worker(self) -> Iterator[SandboxedProcess]:
        """Hold a new process, already started if possible, and kill it at the end in any case."""
        process = self._ordered(WORKER, self._workers)
        try:
            process.await_start()
            yield process
        finally:
            process.kill()

    @contextlib.contextmanager
    def checker(self) -> Iterator[SandboxedProcess]:
        """Hold a process for test programs. It is used again unless something went wrong in it."""
        try:
            process = self._checkers.get_nowait()
        except queue.Empty:
            process = self._ordered(CHECKER, self._new_checkers)
        try:
            process.renew(self.limits.output_bytes)
            process.await_start()
            yield process
        except BaseException:
            process.kill()
            raise
        self._checkers.put(process)

    def _ordered(self, program: str, started: _Started) -> SandboxedProcess:
        """Take a started process, and order the next one."""
        self._orders.put((program, started))
        found = started.get()
        if isinstance(found, SandboxError):
            raise found
        return found

    def _start_ordered(self) -> None:
        """Start ordered processes until the pool closes; the loop of the starter thread."""
        while (order := self._orders.get()) is not None:
            program, started = order
            # a process for test programs serves many samples
            limits = self.limits if program == WORKER else replace(self.limits, cpu_s=10**6)
            try:
                new = self.isolation.start(program, limits)
            except SandboxError as error:
                started.put(error)
            else:
                started.put(SandboxedProcess(new, self.limits.output_bytes))
