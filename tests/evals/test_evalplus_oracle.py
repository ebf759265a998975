"""The oracle of HumanEval+ and MBPP+ where outputs are long. Upstream's verdicts: tests/parity."""

from __future__ import annotations

import pytest

from eapo_agents.grading.code import use_sandbox
from eapo_agents.sandbox import Sandbox
from evals.benchmark import Loaded
from evals.evalplus_oracle import EvalPlusGrader

_N = 60_000
_RECORDS = (
    {
        "task_id": "numbers",
        "prompt": "def f(n):\n",
        "canonical_solution": "    return [i / 2 if i % 2 else i for i in range(n)]\n",
    },
    {
        "task_id": "text",
        "prompt": "def f(n):\n",
        "canonical_solution": "    return 'ab ' * n\n",
    },
    {
        "task_id": "no number",
        "prompt": "def f(n):\n",
        "canonical_solution": "    return [float('nan')] * n\n",
    },
)


@pytest.fixture(scope="module")
def grader(needs_sandbox, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, Sandbox(workers=1) as sandbox:
        patch.setenv("EAPO_CACHE", str(tmp_path_factory.mktemp("cache")))
        use_sandbox(sandbox)
        more = {"entry_point": "f", "atol": 0, "base_input": [[3]], "plus_input": [[_N], [_N // 4]]}
        records = tuple({**record, **more} for record in _RECORDS)
        loaded = Loaded(problems=(), records=records, origin="made here", digest="0" * 64)
        EvalPlusGrader("humaneval", loaded).expected  # noqa: B018  # writes the cache
        yield EvalPlusGrader("humaneval", loaded)
        use_sandbox(None)


@pytest.mark.parametrize(
    ("task", "body", "right"),
    [
        ("numbers", "[i / 2 if i % 2 else i for i in range(n)]", True),
        # equal values of other types: a digest differs, and the values themselves decide
        ("numbers", "[i / 2 if i % 2 else float(i) for i in range(n)]", True),
        ("numbers", "[i / 2 if i % 2 else i for i in range(n - 1)] + [0.25]", False),
        ("numbers", "[[i] for i in range(n)]", False),
        ("numbers", "tuple(i / 2 if i % 2 else i for i in range(n))", False),
        ("text", "'ab ' * n", True),
        ("text", "'ab ' * (n - 1) + 'abc'", False),
        ("text", "type('S', (str,), {})('ab ' * n)", True),
        ("text", "list('ab ' * n)", False),
        ("no number", "[float('nan')] * n", False),  # a new NaN equals no other
    ],
)
def test_long_outputs_are_right_where_they_are_equal(grader, task, body, right):
    _, plus = grader.outcomes(task, f"def f(n):\n    return {body}\n")
    assert plus.passed is right


def test_long_numbers_and_texts_have_digests_and_nan_has_none(grader):
    assert {task: len(plus.briefs) for task, (_, plus) in grader.expected.items()} == {
        "numbers": 1,
        "text": 2,
        "no number": 0,
    }
    assert all(not base.briefs for base, _ in grader.expected.values())
