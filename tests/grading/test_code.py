"""The code grader, as in rewards so in benchmarks: finds the program and runs its tests."""

import pytest

from eapo_agents.errors import GradingError
from eapo_agents.grading import grade
from eapo_agents.grading.code import find_program, use_sandbox
from eapo_agents.rewards import score_text
from eapo_agents.sandbox import Sandbox
from eapo_agents.types import Problem

PROMPT = (
    "from typing import List\n\ndef helper(x: int) -> int:\n    return x + 1\n\n"
    'def add_all(xs: List[int]) -> int:\n    """Sum of helper(x)."""\n'
)
PROBLEM = Problem(
    id="p",
    question="q",
    answer="",
    grader="code",
    metadata={
        "prompt": PROMPT,
        "entry_point": "add_all",
        "test": "def check(candidate):\n    assert candidate([1, 2]) == helper(1) + helper(2)\n",
    },
)
BODY = "    return sum(helper(x) for x in xs)\n"
WHOLE = f"def add_all(xs: List[int]) -> int:\n{BODY}"


@pytest.fixture(scope="module", autouse=True)
def sandbox(needs_sandbox):
    with Sandbox(workers=1) as opened:
        use_sandbox(opened)
        yield
    use_sandbox(None)


RIGHT = {
    "a completion": BODY,
    "the whole function": WHOLE,
    "a fenced block": f"Here you are:\n\n```python\n{WHOLE}```\nIt adds.",
    "a block without a language": f"```\n{WHOLE}```",
    "py": f"```py\n{WHOLE}```",
    "with imports and helper": f"```python\n{PROMPT}{BODY}```",
    "usage in a second block": f"```python\n{WHOLE}```\nUse it:\n"
    "```python\nprint(add_all([1]))\n```",
    "a first try, then the right one": f"```python\ndef add_all(xs): return 0\n```\nBetter:\n"
    f"```python\n{WHOLE}```",
    "shell beside it": f"```bash\npip install x\n```\n```python\n{WHOLE}```",
    "never closed": f"```python\n{WHOLE}",
    "after thinking": "<think>```python\ndef add_all(xs): return 0\n```</think>"
    f"```python\n{WHOLE}```",
    "text around it": f"Sure!\n\n{WHOLE}\nThis adds all numbers, I hope.",
    "the body in a block": f"```python\n{BODY}```",
}


@pytest.mark.parametrize("name", RIGHT)
def test_the_program_is_found_in_what_a_model_writes(name):
    graded = grade(RIGHT[name], PROBLEM)
    assert graded.correct, (graded.note, find_program(RIGHT[name], PROBLEM))


@pytest.mark.parametrize(
    "text",
    ["", "I cannot do that.", "```python\n```", "<think>" + WHOLE, "    return 0\n",
     "def add_all(xs): return -1", "```python\nimport os; os._exit(0)\n```", "\0", "x" * 2_000_000],
)  # fmt: skip
def test_anything_else_is_wrong_and_never_raises(text):
    graded = grade(text, PROBLEM)
    assert graded.score == 0.0


def test_it_is_a_reward():
    assert score_text(BODY, PROBLEM) == (1.0, True)
    assert score_text("    return 0\n", PROBLEM) == (0.1, False)


def test_a_problem_without_tests_raises_and_is_never_a_zero():
    bare = Problem(id="p", question="q", answer="", grader="code")
    with pytest.raises(GradingError, match="'test'"):
        grade(BODY, bare)


def test_samples_that_are_the_same_program_share_one_run():
    thrown = "import random\ndef add_all(xs):\n    return random.SystemRandom().choice([0, 5])\n"
    assert len({grade(f"```python\n{thrown}```", PROBLEM).score for _ in range(24)}) == 1
    other = thrown.replace("5", "6")
    assert grade(f"```python\n{other}```", PROBLEM).score == 0.0, "another program has its own run"
