"""Runs one sample's code and reports what its function returns; it judges nothing.

Its argument is '{"limits": ..., "paths": [...]}'. Messages, one JSON a line:

    to it    {"code", "entry_point", "withheld"}               first of all
             {"inputs": [text, ...], "limits_s": [...]}        runs the code anew, then every input;
                                                               with "timed", says how long each took
             {"load": limit_s}                                 runs the code, for calls
             {"call": text, "limit_s"}                         one call
    from it  {"!": "ready"}                                    waiting for a message
             a value (inside/values.py)                        what a call returned
             {"!": "raised", "error": name}                    the code or a call raised
             {"!": "times", "seconds": [...]}                  of the calls

Upstream's harnesses take some names away from the code that they run. That protects nothing, but a
solution that uses them fails there, so it must fail here.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
import time
import typing  # noqa: F401  # nearly every sample begins with it
from collections.abc import Callable, Sequence
from typing import Any

from channel import Channel
from limits import set_limits
from values import from_text, to_text

BUFFER_CHARS = 1 << 16
READY = '{"!":"ready"}'
_OS = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames "
    "truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
)
_FROM_MODULES = {"shutil": ("rmtree", "move", "chown"), "subprocess": ("Popen",)}
_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class TimeLimitError(Exception):
    """Raised inside a call that takes too long, as upstream's harnesses do."""


class NoInput(io.StringIO):
    """Standard input and output of a sample: what it prints is dropped, and reading fails."""

    def read(self, *args: Any) -> Any:
        raise OSError

    readline = readlines = read

    def readable(self) -> bool:
        return False

    def write(self, text: str) -> int:
        return len(text)


def withhold(code: str, names: Sequence[str]) -> None:
    """Takes away what upstream's harness takes away; `names` are further builtins."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _OS.split():
        setattr(os, name, None)
    for module, attributes in _FROM_MODULES.items():
        if module in code:  # loading what nobody uses takes time
            for name in attributes:
                setattr(__import__(module), name, None)
    for name in ("exit", "quit", "help", *names):
        setattr(builtins, name, None)
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def preload(code: str) -> None:
    """Upstream's processes have NumPy loaded: it must not count against the sample's time, and it
    cannot be loaded once `open` is gone."""
    if "numpy" in code:
        try:
            import numpy  # noqa: F401
        except Exception:
            return


def limited(seconds: float, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Calls with a time limit; a call that catches everything is ended by the harness."""

    def expired(signum: int, frame: Any) -> None:
        raise TimeLimitError

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def raised(error: BaseException) -> str:
    """The report of an exception, whatever its class does to hide."""
    return json.dumps({"!": "raised", "error": str(type(error).__name__)[:100]})


def load(sample: dict[str, Any]) -> Callable[..., Any]:
    """Runs the sample's code in a namespace of its own and returns its function."""
    namespace: dict[str, Any] = {}
    # not inheriting this file's own future imports
    exec(compile(sample["code"], "<sample>", "exec", dont_inherit=True), namespace)
    function: Callable[..., Any] = namespace[sample["entry_point"]]
    return function


def run_inputs(channel: Channel, sample: dict[str, Any], message: dict[str, Any]) -> None:
    """Every input through a fresh load of the code, until one raises."""
    inputs = [from_text(text) for text in message["inputs"]]
    lines: list[str] = []
    times: list[float] = []
    size = 0
    try:
        function = load(sample)
        for arguments, limit_s in zip(inputs, message["limits_s"], strict=True):
            started = time.perf_counter()
            value = limited(limit_s, function, *arguments)
            times.append(time.perf_counter() - started)
            text = to_text(value)
            lines.append(text)
            size += len(text)
            if size > BUFFER_CHARS:
                channel.write("\n".join(lines))
                lines, size = [], 0
    except BaseException as error:
        lines.append(raised(error))
    if message.get("timed"):
        lines.append(json.dumps({"!": "times", "seconds": times}))
    if lines:
        channel.write("\n".join(lines))


def main() -> None:
    start = json.loads(sys.argv[1])
    channel = Channel()
    sys.path.extend(start["paths"])
    set_limits(start["limits"])
    sys.stdin = sys.stdout = sys.stderr = NoInput()
    channel.write(READY)
    sample = channel.read()
    preload(sample["code"])
    withhold(sample["code"], sample["withheld"])
    function: Callable[..., Any] | None = None
    while True:
        message = channel.read()
        if "inputs" in message:
            run_inputs(channel, sample, message)
            channel.write(READY)
            continue
        try:
            if "load" in message:
                function = limited(message["load"], load, sample)
                channel.write(READY)
            else:
                arguments, named = from_text(message["call"])
                assert function is not None
                value = limited(message["limit_s"], function, *arguments, **named)
                channel.write(to_text(value))
        except BaseException as error:
            channel.write(raised(error))
