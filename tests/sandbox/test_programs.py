"""Users' tests run with the sample's code as plain Python would run both; nothing is forged."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from programs import CASES, EVERYTHING, FORGED, PLEASED, REACHED

from eapo_agents.sandbox import Sample, Sandbox, Verdict, run_program

pytestmark = pytest.mark.usefixtures("needs_sandbox")


@pytest.fixture(scope="module")
def sandbox(needs_sandbox):
    with Sandbox(workers=2) as opened:
        yield opened


def outcome(sandbox, code, test, prompt="def f(x):\n"):
    if "def check" not in test:
        test = f"def check(candidate):\n    {test}\n"
    return run_program(
        sandbox, Sample(code=code, entry_point="f"), prompt=prompt, test=test, limit_s=20
    )


@pytest.mark.parametrize("name", CASES)
def test_a_right_solution_passes(sandbox, name):
    prompt, code, test = CASES[name]
    found = outcome(sandbox, code, test, prompt or "def f(x):\n")
    assert found.passed, found


@pytest.mark.parametrize("test", PLEASED)
def test_an_object_that_pleases_every_assertion_passes_none(sandbox, test):
    code = EVERYTHING.format(name="E") + "def f(x): return E()\n"
    assert not outcome(sandbox, code, test).passed
    assert not outcome(sandbox, EVERYTHING.format(name="f"), test).passed


@pytest.mark.parametrize("name", FORGED)
def test_a_wrong_solution_fails_whatever_it_does(sandbox, name):
    assert not outcome(sandbox, *FORGED[name]).passed


def test_a_sample_reaches_nothing_of_the_test_but_what_it_was_given(sandbox):
    assert outcome(sandbox, REACHED, "assert candidate(lambda: 5) == 'nothing'").passed


def test_the_class_under_test_decides_what_the_prompt_asks_of_it(sandbox):
    code = "class f:\n    def __init__(self, v): self.v = v\n"
    code += "    def __eq__(self, other): return other == self.v\n"
    test = "assert candidate(3) == 3"
    assert not outcome(sandbox, code, test, "class f:\n    pass\n").passed
    assert outcome(sandbox, code, test, "class f:\n    def __eq__(self, other): ...\n").passed


@pytest.fixture
def busy():
    """This process and what it starts share one core with five others that never rest."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    loop = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
    others = [subprocess.Popen([sys.executable, "-S", "-c", loop]) for _ in range(5)]
    yield
    for other in others:
        other.kill()
        other.wait()
    os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell")
@pytest.mark.parametrize(
    ("line", "verdict"),
    [("end = 0.25", Verdict.PASSED), ("end = 10", Verdict.TIMED_OUT), ("time.sleep(9)", None)],
)
def test_what_a_program_waits_for_a_core_does_not_count(busy, line, verdict):
    code = f"import time\ndef f(x):\n    end = 0\n    {line}\n"
    code += "    while time.process_time() < end: pass\n    return x\n"
    with Sandbox(workers=1) as sandbox:
        found = run_program(
            sandbox,
            Sample(code=code, entry_point="f"),
            prompt="",
            test="def check(candidate):\n    assert candidate(3) == 3\n",
            limit_s=0.8,
        )
    assert found.verdict is (verdict or Verdict.TIMED_OUT)
