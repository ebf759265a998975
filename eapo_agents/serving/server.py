"""One vLLM server process: its command, the wait until it serves, why it failed, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import httpx2

from eapo_agents.children import end_with_parent
from eapo_agents.errors import ServerError, UsageError
from eapo_agents.serving.find_vllm import Vllm

STOP_S = 20.0
"""How long a server may take to end its requests."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Adapter ranks that vLLM accepts as a maximum."""
_REASON = re.compile(r"(?:\w+(?:Error|Exception)|error): .+")
_PREFIX = re.compile(r"^\(\w+ pid=\d+\) ")
_NO_REASON = ("Engine core initialization failed", "Engine process failed", "SystemExit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a server serves, and where."""

    model: str
    """Folder or hub name."""
    names: Sequence[str]
    """Names that requests may use for it."""
    host: str = "127.0.0.1"
    port: int = 8000
    dtype: str = "auto"
    max_model_len: int | None = None
    lora_rank: int | None = None
    """Highest rank of adapters that may be loaded; None loads no adapters."""
    adapters: Sequence[tuple[str, str]] = ()
    """Names and folders of adapters to load at the start."""
    takes_adapters: bool = False
    """Whether clients may load adapters while it serves: for training, on a private network."""
    extra: Sequence[str] = ()
    """Further options for vLLM."""

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://{self.host}:{self.port}"


def command(vllm: Vllm, serving: Serving) -> list[str]:
    """Return the server's command line."""
    parts = [vllm.python, "-m", "vllm.entrypoints.openai.api_server", "--model", serving.model]
    parts += ["--served-model-name", *serving.names]
    parts += ["--host", serving.host, "--port", str(serving.port), "--dtype", serving.dtype]
    # training needs the logprobs of the distribution that is sampled, after temperature
    parts += ["--logprobs-mode", "processed_logprobs"]
    if serving.max_model_len:
        parts += ["--max-model-len", str(serving.max_model_len)]
    if serving.lora_rank:
        rank = next((r for r in LORA_RANKS if r >= serving.lora_rank), serving.lora_rank)
        parts += ["--enable-lora", "--max-lora-rank", str(rank)]
        parts += ["--max-loras", "2", "--max-cpu-loras", "4"]
        if serving.adapters:
            parts += ["--lora-modules", *(f"{name}={path}" for name, path in serving.adapters)]
    if vllm.on_cpu:
        parts.append("--enforce-eager")
    return [*parts, *serving.extra]


def environment(vllm: Vllm, serving: Serving, key: str | None) -> dict[str, str]:
    """Return the server's environment: without telemetry, and with the key, which would be visible
    on a command line."""
    given = dict(os.environ)
    given.setdefault("VLLM_NO_USAGE_STATS", "1")
    given.setdefault("DO_NOT_TRACK", "1")
    if vllm.on_cpu:
        given.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
        # by default vLLM reserves a core for its other processes: half of a machine with two
        given.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")
    if Path(serving.model).is_dir():
        given.setdefault("HF_HUB_OFFLINE", "1")
    given.pop("VLLM_ALLOW_RUNTIME_LORA_UPDATING", None)
    if serving.takes_adapters:
        given["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if key:
        given["VLLM_API_KEY"] = key
    return given


class ServerProcess:
    """A running server. Its output goes to a file."""

    def __init__(self, vllm: Vllm, serving: Serving, log: Path, key: str | None = None) -> None:
        """Start the server; `wait` returns when it serves.

        Raises:
            UsageError: the port is taken.
        """
        _refuse_taken_port(serving)
        self.serving = serving
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._output: IO[bytes] = log.open("wb")
        self._process = subprocess.Popen(
            command(vllm, serving),
            env=environment(vllm, serving, key),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # a server must not outlive a killed `eapo serve`
            preexec_fn=partial(end_with_parent, os.getpid()),
        )

    @property
    def pid(self) -> int:
        """Id of the server's first process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is alive."""
        return self._process.poll() is None

    def wait(self, timeout_s: float, on_wait: Callable[[str], None] = lambda line: None) -> None:
        """Wait until the server is healthy; `on_wait` gets the log's last line every second.

        Raises:
            ServerError: the server ended or took too long; the message holds the log's reason.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if not self.is_running:
                raise ServerError(f"The server did not start: {self.reason()}")
            with contextlib.suppress(httpx2.HTTPError, OSError):
                if httpx2.get(f"{self.serving.url}/health", timeout=5.0).status_code == 200:
                    return
            if time.monotonic() > deadline:
                self.stop()
                raise ServerError(
                    f"The server was not ready after {timeout_s:g} s: see {self.log}, or give it "
                    "longer with --timeout."
                )
            on_wait(self._last_line())
            time.sleep(1.0)

    def reason(self) -> str:
        """Return why the server ended, from its log, in one line."""
        status = self._process.poll()
        lines = self._lines()
        found = [
            match.group(0) + _detail(lines[number + 1 :])
            for number, line in enumerate(lines)
            if (match := _REASON.search(line)) and not any(n in line for n in _NO_REASON)
        ]
        said = found[-1][:400] if found else f"it ended with status {status}"
        return f"{said} (log: {self.log})"

    def stop(self) -> None:
        """End the server with all its processes; return when they are gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._output.close()

    def _lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def _last_line(self) -> str:
        lines = self._lines()
        return lines[-1].strip() if lines else ""


def _detail(following: Sequence[str]) -> str:
    """Return the rest of an error that continues in the next line, indented, as pydantic's do."""
    text = _PREFIX.sub("", following[0]) if following else ""
    return f": {text.strip()}" if text.startswith("  ") else ""


def _refuse_taken_port(serving: Serving) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((serving.host, serving.port))
        except OSError as error:
            raise UsageError(
                f"{serving.host}:{serving.port} cannot be served at ({error.strerror}): stop what "
                "listens there, or give another --host and --port."
            ) from error
