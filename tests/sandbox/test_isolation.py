"""Which isolation is taken, what it is told, and what happens without any."""

import platform
import struct
import subprocess
import sys

import pytest

from eapo_agents.errors import SandboxError
from eapo_agents.sandbox import Inputs, Limits, Sample, Sandbox, find_isolation, run_inputs
from eapo_agents.sandbox.isolation import Bubblewrap, Container, Started, Unsafe
from eapo_agents.sandbox.seccomp import filter_program


def test_bubblewrap_gets_every_namespace_and_no_environment():
    arguments = Bubblewrap("/usr/bin/bwrap").arguments(Limits())
    for wanted in ("--unshare-all", "--clearenv", "--die-with-parent", "--new-session"):
        assert wanted in arguments
    assert "--bind" not in arguments
    read_only = [arguments[i + 1] for i, a in enumerate(arguments) if a == "--remount-ro"]
    assert read_only == ["/proc", "/dev", "/"]


def test_the_container_command_shuts_out_what_bubblewrap_shuts_out(monkeypatch):
    monkeypatch.setenv("EAPO_SANDBOX_IMAGE", "my/python")
    command = Container("/usr/bin/podman").command("worker", Limits(), "box")
    text = " ".join(command)
    for wanted in ("--network none", "--read-only", "--cap-drop ALL", "no-new-privileges",
                   "--pids-limit 128", "--user 65534:65534", ":/inside:ro"):  # fmt: skip
        assert wanted in text
    assert command[command.index("my/python") + 1 :][:4] == ["python3", "-I", "-S", "-B"]


def test_a_container_engine_is_spoken_to_as_bubblewrap_is(tmp_path):
    """An engine that drops what is for the container and starts the program: the protocol."""
    from eapo_agents.sandbox.isolation import INSIDE

    engine = tmp_path / "podman"
    engine.write_text(
        f"#!/bin/sh\necho $* >> {tmp_path}/log\n"
        "[ $1 = rm ] && exit\nwhile [ $1 != python3 ]; do shift; done; shift\n"
        f'code=$(echo "$5" | sed "s#/inside#{INSIDE}#")\n'
        f'exec {sys.executable} $1 $2 $3 $4 "$code" "$6"\n'
    )
    engine.chmod(0o755)
    inputs = Inputs(texts=["[2, 3]"], limits_s=[5.0], total_s=5.0)
    sample = Sample(code="def add(a, b): return a + b", entry_point="add")
    with Sandbox(Container(str(engine)), workers=1) as sandbox:
        (outcome,) = run_inputs(sandbox, sample, [(inputs, lambda index, line: line == b"5")])
    assert outcome.passed
    log = (tmp_path / "log").read_text().splitlines()
    names = {line.split("--name ")[1].split()[0] for line in log if line.startswith("run")}
    assert {f"rm --force {name}" for name in names} <= set(log)  # or they would go on


def test_without_a_sandbox_there_is_a_sentence_and_unsafe_has_to_be_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=r"bwrap is not installed.*apt install bubblewrap"):
        find_isolation()
    assert isinstance(find_isolation(unsafe=True), Unsafe)
    with pytest.raises(SandboxError, match="Unknown sandbox 'magic'"):
        find_isolation("magic")


def test_a_bubblewrap_that_does_not_work_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'setting up uid map: Permission denied' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SandboxError, match="uid map: Permission denied"):
        find_isolation("bubblewrap")


def test_a_sandbox_that_stops_working_blames_no_sample():
    class Gone:
        def start(self, program, limits):
            pipe = subprocess.PIPE
            return Started(subprocess.Popen(["/bin/false"], stdin=pipe, stdout=pipe, stderr=pipe))

    inputs = Inputs(texts=["[]"], limits_s=[1.0], total_s=1.0)
    sample = Sample(code="", entry_point="f")
    with Sandbox(Gone(), workers=1) as sandbox, pytest.raises(SandboxError, match="start"):
        run_inputs(sandbox, sample, [(inputs, lambda index, line: True)])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_whole_instructions_and_no_jump_leaves_it(machine):
    program = filter_program(machine)
    size = struct.calcsize("=HBBI")
    assert len(program) % size == 0
    code = [struct.unpack("=HBBI", program[i : i + size]) for i in range(0, len(program), size)]
    for index, (_, jump_true, jump_false, _) in enumerate(code):
        assert index + 1 + max(jump_true, jump_false) < len(code) or code[index][0] == 6
    assert code[-1][0] == 6
    assert filter_program("z80") is None
    assert filter_program() == filter_program(platform.machine())
