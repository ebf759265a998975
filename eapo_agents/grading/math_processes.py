"""Math-Verify in separate processes: killed when they have used up their CPU time.

Sympy evaluates whatever it gets, so a hostile answer (a tower of powers, a huge factorial) would
hold the caller for ever, and no signal handler interrupts a long multiplication. The limit is on
CPU time, so that a busy machine changes no verdict. What was too late is tried again with more
time, one comparison after another; what is still not decided is undecided.
"""

from __future__ import annotations

import atexit
import json
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from functools import cache

CPU_LIMIT_S = 2.0
"""Of one comparison."""
RETRY_CPU_LIMIT_S = 6.0
"""Of the second try."""
_WALL_LIMIT_S = 600.0
"""A process that does not even use its CPU time is lost."""
_NUM_PROCESSES = 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """The verdict of math-verify."""

    equal: bool
    readable: bool
    gold_readable: bool = True
    undecided: str = ""
    """Why there is no verdict."""


class _Process:
    """One process with math-verify loaded: a line in, a line out."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eapo_agents.grading.math_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # so that a Ctrl-C reaches only us
        )

    def ask(self, gold: str, answer: str, cpu_s: float) -> dict[str, bool]:
        """Return the reply.

        Raises:
            TimeoutError, OSError, EOFError, ValueError: there is no reply.
        """
        message = {"gold": gold, "answer": answer, "cpu_s": cpu_s}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
        reply: dict[str, bool] = json.loads(self._line())
        return reply

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> bytes:
        """Return one line; the process never writes more than one at a time."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + _WALL_LIMIT_S
        line = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                data = self._process.stdout.read(4096)
                if not data:
                    if self._process.wait() == -signal.SIGPROF:
                        raise TimeoutError
                    raise EOFError
                line += data
        return line


class MathProcesses:
    """Compares with math-verify; thread-safe. One process works while another one is ready."""

    def __init__(self, num_processes: int = _NUM_PROCESSES) -> None:
        self._free: queue.Queue[_Process] = queue.Queue()
        self._all: set[_Process] = set()
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        for _ in range(num_processes):
            self._add()
        atexit.register(self.close)

    def compare(self, gold: str, answer: str) -> Comparison:
        """Compare two answers; what has no verdict in time is tried again."""
        first = self._try(gold, answer, CPU_LIMIT_S)
        if not first.undecided:
            return first
        with self._alone:
            return self._try(gold, answer, RETRY_CPU_LIMIT_S)

    def close(self) -> None:
        """End every process."""
        with self._lock:
            ended, self._all = self._all, set()
        for process in ended:
            process.end()

    def _try(self, gold: str, answer: str, cpu_s: float) -> Comparison:
        process = self._free.get()
        try:
            reply = process.ask(gold, answer, cpu_s)
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            self._replace(process)
            late = isinstance(error, TimeoutError)
            why = f"not compared in {cpu_s:g} s of CPU time" if late else "the comparison broke off"
            return Comparison(False, False, undecided=why)
        except BaseException:
            self._replace(process)
            raise
        self._free.put(process)
        return Comparison(reply["equal"], reply["readable"], reply["gold_readable"])

    def _replace(self, process: _Process) -> None:
        process.end()
        with self._lock:
            self._all.discard(process)
        self._add()

    def _add(self) -> None:
        process = _Process()
        with self._lock:
            self._all.add(process)
        self._free.put(process)


@cache
def the_processes() -> MathProcesses:
    """Return this program's processes."""
    return MathProcesses()
