"""Users' tests run with the sample's code as plain Python would run both; nothing is forged."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from programs import CASES, EVERYTHING, FORGED, PLEASED, REACHED

from eapo_agents.sandbox import Sample, Sandbox, run_program

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
