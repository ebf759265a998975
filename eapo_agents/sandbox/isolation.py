"""How code is isolated: by bubblewrap, by a container engine, or, when the user says so each time,
not at all.

With bubblewrap or a container, the process that runs a sample gets no environment, no network, an
empty home, a read-only system and a small scratch folder. When the harness kills it, everything
that it started ends too.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Protocol

from eapo_agents.errors import SandboxError
from eapo_agents.sandbox.cgroups import Group, make_group
from eapo_agents.sandbox.seccomp import filter_program

WORKER, CHECKER = "worker", "checker"
"""Programs in `inside/`."""
INSIDE = Path(__file__).parent / "inside"
IMAGE = "python:3.11-slim"
_MIB = 1 << 20
_OVERHEAD_BYTES, _OVERHEAD_PIDS = 128 * _MIB, 8
"""What bubblewrap and the kernel's own buffers need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one sample may use. The harness adds a limit on wall time for each job."""

    memory_bytes: int = 4096 * _MIB
    """Address space of the sample's one process; evalplus allows the same."""
    cpu_s: int = 120
    file_bytes: int = 16 * _MIB
    scratch_bytes: int = 64 * _MIB
    """Of all files in the scratch folder together."""
    open_files: int = 64
    threads: int = 128
    """Of the sample's one process."""
    output_bytes: int = 256 * _MIB
    """Of all that the sample's function returns."""


@dataclass(frozen=True, slots=True)
class Started:
    """A started process, and the command that ends what killing the process would leave."""

    process: subprocess.Popen[bytes]
    end_command: tuple[str, ...] = ()
    group: Group | None = None


class Isolation(Protocol):
    """A way to start a program of `inside/` in isolation."""

    def start(self, program: str, limits: Limits) -> Started:
        """Start the program with pipes as its standard input and output."""


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """Linux namespaces through `bwrap`: separate user, mount, pid, network, ipc, uts and cgroup."""

    executable: str

    def start(self, program: str, limits: Limits) -> Started:
        """See `Isolation`. `bwrap` itself gets no environment either, so that nothing could be read
        from it even if it were visible inside."""
        command = [*self.arguments(limits), *_here(program, limits)]
        filter_ = filter_program()
        if filter_ is None:
            raise SandboxError(
                f"No system-call filter is known for this machine ({platform.machine()}): "
                "use a container engine (--sandbox docker)."
            )
        memory = limits.memory_bytes + limits.scratch_bytes + _OVERHEAD_BYTES
        group = make_group({"pids": limits.threads + _OVERHEAD_PIDS, "memory": memory})
        with _readable(filter_) as fd:
            filtered = [self.executable, "--seccomp", str(fd.fileno()), *command]
            if group is not None:
                filtered = group.entering(filtered)
            return Started(_popen(filtered, (fd.fileno(),)), group=group)

    def arguments(self, limits: Limits) -> list[str]:
        """Return everything between `bwrap` and the command."""
        shown = [path for path in _system_paths() if Path(path).exists()]
        return [
            *("--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"),
            # otherwise a process of bwrap runs inside, without a filter, and the sample could write
            # its memory
            "--as-pid-1",
            *("--clearenv", "--cap-drop", "ALL", "--hostname", "sandbox"),
            # before the bind mounts: Python may live in the host's /tmp
            *("--size", str(limits.scratch_bytes), "--tmpfs", "/tmp"),
            *(word for path in shown for word in _bind(path)),
            *("--proc", "/proc", "--dev", "/dev", "--dir", "/home/sandbox"),
            # /proc too: the kernel treats root inside as root, and nothing else guards /proc/sys
            *("--remount-ro", "/proc", "--remount-ro", "/dev", "--remount-ro", "/"),
            *("--setenv", "HOME", "/home/sandbox", "--setenv", "LANG", "C.UTF-8"),
            *("--chdir", "/tmp", "--"),
        ]


@dataclass(frozen=True, slots=True)
class Container:
    """Docker or Podman. EAPO_SANDBOX_IMAGE names an image with Python, and NumPy for samples that
    use it."""

    executable: str

    def start(self, program: str, limits: Limits) -> Started:
        """See `Isolation`. The engine's client needs the environment; the container gets none of
        it."""
        name = f"eapo-sandbox-{uuid.uuid4().hex}"
        process = _popen(self.command(program, limits, name), (), environment=os.environ)
        # killing the engine's client does not end the container
        return Started(process, (self.executable, "rm", "--force", name))

    def command(self, program: str, limits: Limits, name: str) -> list[str]:
        """Return the whole command line; `name` is the container's."""
        image = os.environ.get("EAPO_SANDBOX_IMAGE", IMAGE)
        return [
            *(self.executable, "run", "--rm", "--interactive", "--name", name, "--network", "none"),
            *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--user", "65534:65534", "--pids-limit", str(limits.threads), "--init"),
            *("--memory", str(limits.memory_bytes), "--memory-swap", str(limits.memory_bytes)),
            *("--tmpfs", f"/tmp:rw,size={limits.scratch_bytes}", "--workdir", "/tmp"),
            *("--volume", f"{INSIDE}:/inside:ro", "--env", "HOME=/nonexistent"),
            *(image, *python_command("python3", "/inside", program, limits, ())),
        ]


@dataclass(frozen=True, slots=True)
class Unsafe:
    """No isolation: an ordinary process of the user, with limits that it sets on itself."""

    def start(self, program: str, limits: Limits) -> Started:
        """See `Isolation`."""
        return Started(_popen(_here(program, limits), (), cwd=tempfile.gettempdir()))


def find_isolation(wanted: str = "auto", *, unsafe: bool = False) -> Isolation:
    """Return an isolation that works here: each candidate runs a program once.

    Args:
        wanted: `auto`, `bubblewrap`, `docker` or `podman`; EAPO_SANDBOX replaces `auto`.
        unsafe: whether the user asked for no isolation, this once.

    Raises:
        SandboxError: none works; the message says why and what to do.
    """
    if unsafe:
        return Unsafe()
    if wanted == "auto":
        wanted = os.environ.get("EAPO_SANDBOX", "auto")
    kinds: dict[str, str] = {"bubblewrap": "bwrap", "docker": "docker", "podman": "podman"}
    if wanted != "auto" and wanted not in kinds:
        raise SandboxError(f"Unknown sandbox '{wanted}': use auto, {', '.join(kinds)}.")
    reasons = []
    for kind in kinds if wanted == "auto" else (wanted,):
        executable = shutil.which(kinds[kind])
        if executable is None:
            reasons.append(f"{kinds[kind]} is not installed")
            continue
        isolation: Isolation = (
            Bubblewrap(executable) if kind == "bubblewrap" else Container(executable)
        )
        problem = _try_out(isolation)
        if problem is None:
            return isolation
        reasons.append(f"{kind} does not work here ({problem})")
    raise SandboxError(
        "Code written by a model runs only in a sandbox, and no sandbox works here: "
        f"{'; '.join(reasons)}. Install bubblewrap (apt install bubblewrap), or start Docker or "
        "Podman; --unsafe-code runs the code without any protection, this once."
    )


def python_command(
    python: str, inside: str, program: str, limits: Limits, paths: Sequence[str]
) -> list[str]:
    """Return the command that runs a program without the user's site, environment or bytecode;
    samples find libraries in `paths`."""
    start = {"limits": asdict(limits), "paths": list(paths)}
    # as a module, whose bytecode is kept: a script would be compiled each time
    code = f"import sys; sys.path.insert(0, {inside!r}); import {program}; {program}.main()"
    return [python, "-I", "-S", "-B", "-c", code, json.dumps(start)]


def _here(program: str, limits: Limits) -> list[str]:
    return python_command(_python(), str(INSIDE), program, limits, _libraries())


def _python() -> str:
    """Return the interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


def _libraries() -> list[str]:
    return sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


def _system_paths() -> list[str]:
    """Return what a sample may read: the system's programs and libraries, Python, our few files."""
    system = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache"]
    return [*system, sys.base_prefix, *_libraries(), str(INSIDE)]


def _bind(path: str) -> list[str]:
    if os.path.islink(path):  # /lib -> usr/lib
        return ["--symlink", os.readlink(path), path]
    return ["--ro-bind", path, path]


def _readable(data: bytes) -> IO[bytes]:
    """Return an open file that a child can read from its beginning."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    file.write(data)
    file.flush()
    file.seek(0)
    return file


def _popen(
    command: Sequence[str],
    fds: Sequence[int],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(environment or {}),
            pass_fds=fds,
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C is the harness's to handle
        )
    except OSError as error:
        raise SandboxError(f"The sandbox cannot be started: {error}.") from error


def _try_out(isolation: Isolation) -> str | None:
    """Return None if the isolation works, else its error."""
    started = isolation.start(WORKER, Limits())
    try:
        out, err = started.process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        return "it did not answer within 60 s"
    finally:
        end(started)
    if b'"ready"' in out:
        return None
    lines = err.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else f"exit status {started.process.returncode}"


def end(started: Started) -> None:
    """End a process and everything inside its isolation."""
    started.process.kill()
    if started.end_command:
        subprocess.run(started.end_command, capture_output=True, check=False)
    for stream in (started.process.stdin, started.process.stdout, started.process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    started.process.wait()
    if started.group is not None:
        started.group.remove()
