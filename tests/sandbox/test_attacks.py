"""Hostile programs against the sandbox: all contained, and what else is judged stays as it was."""

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from attacks import FORGERIES, PROBES, VALUES

from eapo_agents.sandbox import Inputs, Limits, Sample, Sandbox, Verdict, run_inputs, run_program
from eapo_agents.sandbox.cgroups import make_group
from eapo_agents.sandbox.inside.values import from_text, to_text

pytestmark = pytest.mark.usefixtures("needs_sandbox")
RIGHT = "def attack():\n    return 'the right ' + 'answer'\n"
TEST = "def check(candidate):\n    assert candidate() == 'the right answer'\n"
LIMIT_S = 0.6


@pytest.fixture(scope="module")
def sandbox(needs_sandbox):
    limits = Limits(memory_bytes=2 << 30, output_bytes=64 << 20)
    with Sandbox(workers=3, limits=limits) as opened:
        yield opened


@pytest.fixture(autouse=True)
def little_grace(monkeypatch):
    monkeypatch.setattr("eapo_agents.sandbox.run.GRACE_S", 0.5)


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """What is there to be reached: a secret in a file and in the environment, two sockets."""
    file = tmp_path_factory.mktemp("home") / "secret.txt"
    file.write_text("secret")
    os.environ["EAPO_TEST_KEY"] = "secret"
    group = make_group({"pids": 64})
    counted = group is not None
    if group is not None:
        group.remove()
    abstract = f"eapo-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield {
            "{file}": str(file),
            "{port}": str(tcp.getsockname()[1]),
            "{abstract}": abstract,
            "{pid}": str(os.getpid()),
            "{parent}": str(os.getppid()),
            "{counted}": str(counted),
        }
    del os.environ["EAPO_TEST_KEY"]


def values(sandbox, code, num_calls=1, limit_s=LIMIT_S):
    """What `attack()` returned, and how it ended."""
    returned = []

    def accepts(index, line):
        returned.append(from_text(line.decode()))
        return True

    inputs = Inputs(texts=["[]"] * num_calls, limits_s=[limit_s] * num_calls, total_s=limit_s)
    (outcome,) = run_inputs(sandbox, Sample(code=code, entry_point="attack"), [(inputs, accepts)])
    return returned, outcome


def is_judged_right(sandbox, code):
    """By a test program and by inputs, as the benchmarks do it."""
    sample = Sample(code=code, entry_point="attack")
    by_program = run_program(sandbox, sample, prompt="", test=TEST, limit_s=LIMIT_S)
    inputs = Inputs(texts=["[]"], limits_s=[LIMIT_S], total_s=LIMIT_S)
    expected = b'"the right answer"'
    (by_inputs,) = run_inputs(sandbox, sample, [(inputs, lambda index, line: line == expected)])
    return by_program.passed, by_inputs.passed


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_reaches_nothing_and_the_next_sample_is_judged_as_ever(sandbox, surroundings, name):
    code = PROBES[name]
    for placeholder, value in surroundings.items():
        code = code.replace(placeholder, value)
    started = time.monotonic()
    with ThreadPoolExecutor(2) as threads:  # a right sample beside it, at the same time
        beside = threads.submit(is_judged_right, sandbox, RIGHT)
        returned, outcome = threads.submit(values, sandbox, code).result()
        assert beside.result() == (True, True)
    assert True not in returned, (name, returned, outcome)
    assert time.monotonic() - started < 12
    assert is_judged_right(sandbox, RIGHT) == (True, True)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_not_judged_right(sandbox, name):
    started = time.monotonic()
    assert is_judged_right(sandbox, FORGERIES[name]) == (False, False)
    assert time.monotonic() - started < 15
    assert is_judged_right(sandbox, RIGHT) == (True, True)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_would_be_dear_to_read_is_refused(name):
    line = to_text(eval(VALUES[name]))
    with pytest.raises(ValueError, match=r"not a value|too"):
        from_text(line)


@pytest.mark.parametrize("dtype", ["1f8,(300,20000)f8", "O", "U100000", "V100000", "f8" * 3, 3])
def test_an_array_of_an_odd_type_is_refused(dtype):
    with pytest.raises(ValueError, match=r"value|numeric"):
        from_text(json.dumps({"n": [dtype, 0]}))


def test_a_sample_finds_nothing_of_the_one_before_it(sandbox):
    code = PROBES["files of other samples"]
    for _ in range(sandbox.num_workers + 2):
        returned, outcome = values(sandbox, code)
        assert returned == [False], outcome


def test_nothing_is_left_when_the_harness_is_done_with_a_sample(sandbox):
    values(sandbox, PROBES["leave a process behind"])
    values(sandbox, PROBES["sleep"])
    left = 0
    for _ in range(50):
        # the warm ones wait in these very names; what counts is that no more than they are there
        running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        left = sum("import worker" in line and "bwrap" in line for line in running.splitlines())
        if left <= 2 * (sandbox.num_workers + 2):
            break
        time.sleep(0.1)
    assert left <= 2 * (sandbox.num_workers + 2)


def test_a_harness_that_is_killed_takes_its_samples_with_it(tmp_path):
    script = tmp_path / "harness.py"
    script.write_text(
        "import sys, threading, time\n"
        "from eapo_agents.sandbox import Inputs, Sample, Sandbox, run_inputs\n"
        "sandbox = Sandbox(workers=1)\n"
        "inputs = Inputs(texts=['[]'], limits_s=[60], total_s=60)\n"
        "code = 'import time\\nmarker = 987654321\\ndef attack():\\n    time.sleep(60)\\n'\n"
        "sample = Sample(code=code, entry_point='attack')\n"
        "job = (sandbox, sample, [(inputs, lambda i, l: True)])\n"
        "threading.Thread(target=run_inputs, args=job).start()\n"
        "time.sleep(1)\n"
        "print('running', flush=True)\n"
        "time.sleep(60)\n"
    )
    harness = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert harness.stdout.readline() == "running\n"
    children = _descendants(harness.pid)
    assert children
    harness.kill()
    harness.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < deadline, "a sample outlived its harness"
        time.sleep(0.05)


def test_time_that_is_up_is_told_from_a_wrong_answer(sandbox):
    _, outcome = values(
        sandbox,
        "def attack():\n    while True:\n        try:\n            while True:\n"
        "                x = 1\n        except Exception:\n            x = 2\n",
    )
    assert outcome.verdict is Verdict.TIMED_OUT
    _, outcome = values(sandbox, "def attack():\n    return 1 / 0\n")
    assert (outcome.verdict, outcome.detail) == (Verdict.FAILED, "raised ZeroDivisionError")


def _descendants(pid):
    import psutil

    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
