"""Runs one sample's code and reports what its function returns; it judges nothing.

Its argument is '{"limits": ..., "paths": [...]}'. Messages, one JSON per line:

    to it    {"code", "entry_point", "withheld", "tests"}      the first message
             {"inputs": [text, ...], "limits_s": [...]}        runs the code, then every input;
                                                               with "timed", reports the seconds;
                                                               with "brief", long values' digests
             {"load": limit_s}                                 runs the code, then shares its
                                                               objects with a test (objects.py)
    from it  {"!": "ready"}                                    it waits for a message
             a value (inside/values.py)                        what a call returned
             {"!": "raised", "error": name}                    the code or a call raised
             {"!": "times", "seconds": [...]}                  of the calls

Upstream's harnesses remove some names from the code that they run. That protects nothing, but a
solution that uses them fails there, so it must fail here.
"""

from __future__ import annotations

import builtins
import importlib
import io
import json
import os
import re
import signal
import sys
import time
import typing  # noqa: F401  # nearly every sample begins with it
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from channel import Channel, NoInput
from limits import limit_threads, set_limits
from processes import use_threads
from values import brief_text, from_text, to_text

if TYPE_CHECKING:
    from objects import Peer

BUFFER_CHARS = 1 << 16
READY = '{"!":"ready"}'
_OS = (
    "kill system putenv remove removedirs rmdir fchdir setuid fork forkpty killpg rename renames "
    "truncate replace unlink fchmod fchown chmod chown chroot lchflags lchmod lchown getcwd chdir"
)
_FROM_MODULES = {"shutil": ("rmtree", "move", "chown"), "subprocess": ("Popen",)}
_IMPORTED = re.compile(r"\b(?:import|from|__import__|import_module)\b.*")
_PRELOADED = {
    "numpy": ("numpy",),
    "multiprocessing": ("multiprocessing", "multiprocessing.pool", "multiprocessing.dummy"),
    "concurrent": ("concurrent.futures.thread", "concurrent.futures.process"),
    "asyncio": ("asyncio",),
    **{name: (name,) for name in ("pandas", "scipy", "sympy", "networkx", "sklearn", "torch")},
}
_T = TypeVar("_T")
_MODULES = ("ipdb", "joblib", "resource", "psutil", "tkinter")


class TimeLimitError(Exception):
    """Raised inside a call that takes too long, as upstream's harnesses do."""


class TestsInput(io.TextIOBase):
    """The standard input of a sample under test: what the tests have put there."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def read(self, *args: object) -> Any:
        return self._peer.ask("input", "read", args)

    def readline(self, *args: object) -> Any:
        return self._peer.ask("input", "readline", args)

    def readable(self) -> bool:
        return True


def withhold(code: str, names: Sequence[str]) -> None:
    """Remove what upstream's harness removes; `names` are further builtins."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _OS.split():
        setattr(os, name, None)
    for module, attributes in _FROM_MODULES.items():
        if module in code:  # loading an unused module takes time
            for name in attributes:
                setattr(__import__(module), name, None)
    for name in ("exit", "quit", "help", *names):
        setattr(builtins, name, None)
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]


def preload(code: str) -> None:
    """Load what upstream's processes have loaded, and what needs the names that are withheld.

    Its time is not the sample's, and a module that cannot be loaded fails where the sample does.
    """
    lines = "\n".join(_IMPORTED.findall(code)) + ("asyncio" if "async " in code else "")
    for name, modules in _PRELOADED.items():
        if name in lines:
            for module in modules:
                try:
                    importlib.import_module(module)
                except Exception:
                    break


def limited(seconds: float, function: Callable[..., _T], *args: object, **kwargs: object) -> _T:
    """Call with a time limit, in which waiting for a core does not count. A call that catches every
    exception is ended by the harness."""
    begun, waited = time.monotonic(), waited_s()

    def expired(signum: int, frame: FrameType | None) -> None:
        left = seconds + (waited_s() - waited) - (time.monotonic() - begun)
        if left <= 0:
            raise TimeLimitError
        signal.setitimer(signal.ITIMER_REAL, left)

    signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return function(*args, **kwargs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def waited_s() -> float:
    """Return how long this process has waited for a core until now; 0 if that is unknown."""
    try:
        file = os.open("/proc/self/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        return int(os.read(file, 100).split()[1]) / 1e9
    finally:
        os.close(file)


def raised(error: BaseException) -> str:
    """Return the report of an exception, whatever its class does to hide."""
    return json.dumps({"!": "raised", "error": str(type(error).__name__)[:100]})


def load(sample: dict[str, Any]) -> Callable[..., object]:
    """Run the sample's code in a new namespace and return its function."""
    function: Callable[..., object] = run_code(sample)[sample["entry_point"]]
    return function


def run_code(sample: dict[str, Any]) -> dict[str, Any]:
    """Run the sample's code and return its names."""
    namespace: dict[str, Any] = {}
    # it does not inherit this file's own future imports
    exec(compile(sample["code"], "<sample>", "exec", dont_inherit=True), namespace)
    return namespace


def run_inputs(channel: Channel, sample: dict[str, Any], message: dict[str, Any]) -> None:
    """Load the code again and call its function on every input, until one raises."""
    inputs = [from_text(text) for text in message["inputs"]]
    written = brief_text if message.get("brief") else to_text
    lines: list[str] = []
    times: list[float] = []
    size = 0
    try:
        function = load(sample)
        for arguments, limit_s in zip(inputs, message["limits_s"], strict=True):
            started = time.perf_counter()
            value = limited(limit_s, function, *arguments)
            times.append(time.perf_counter() - started)
            text = written(value)
            lines.append(text)
            size += len(text)
            if size > BUFFER_CHARS:  # a write per value would cost more than many calls
                channel.write("\n".join(lines))
                lines, size = [], 0
    except BaseException as error:
        lines.append(raised(error))
    if message.get("timed"):
        lines.append(json.dumps({"!": "times", "seconds": times}))
    if lines:
        channel.write("\n".join(lines))


def main() -> None:
    """Answer messages until the harness closes the pipe."""
    start = json.loads(sys.argv[1])
    channel = Channel()
    sys.path.extend(start["paths"])
    set_limits(start["limits"])
    limit_threads(start["limits"]["threads"])
    sys.stdin = sys.stdout = sys.stderr = NoInput()
    channel.write(READY)
    sample = channel.read()
    if sample["tests"]:
        import objects  # noqa: F401  # while it can be
    preload(sample["code"] + sample["tests"])
    withhold(sample["code"], sample["withheld"])
    while True:
        message = channel.read()
        if "inputs" in message:
            run_inputs(channel, sample, message)
            channel.write(READY)
            continue
        try:
            use_threads()
            namespace = limited(message["load"], run_code, sample)
            namespace[sample["entry_point"]]
        except BaseException as error:
            channel.write(raised(error))
            continue
        channel.write(READY)
        share(channel, namespace)


def share(channel: Channel, namespace: dict[str, Any]) -> None:
    """Do what a test program asks."""
    from objects import Peer

    peer = Peer(channel.read, channel.write, number=1, trusted=True)
    printed = io.StringIO()

    def taken() -> str:
        text = printed.getvalue()
        printed.seek(0)
        printed.truncate()
        return text

    def of_name(name: str) -> Any:
        return namespace[name] if name else tuple(namespace)

    peer.names, peer.printed = of_name, taken
    sys.stdout = printed
    sys.stdin = TestsInput(peer)
    builtins.input = lambda *args: peer.ask("input", "input", args)
    peer.serve()
