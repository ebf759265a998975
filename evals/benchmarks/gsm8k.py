"""GSM8K: 1,319 grade-school word problems.

Source: hub openai/gsm8k; upstream file openai/grade-school-math, test.jsonl (MIT). The gold answer
is what follows `####`. An answer is what is announced last (a box, "the answer is", `####`), else
the last number, compared exactly. Greedy, as most reports have it.
"""

from __future__ import annotations

from dataclasses import replace

from eapo_agents.tasks.gsm8k import make_problem
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record

PROMPT = "{question}\n\nReason step by step, and end with 'Answer: ' and the number."


def _problem(record: Record, number: int) -> Problem:
    problem = make_problem(record, "test", number)
    return replace(
        problem,
        question=PROMPT.format(question=problem.question),
        grader="number:lenient",
        metadata={},
    )


GSM8K = Benchmark(
    name="gsm8k",
    title="GSM8K",
    version="2",
    hub=Hub(repo="openai/gsm8k", config="main", split="test"),
    file="gsm8k/test.jsonl",
    licence="MIT",
    problem=_problem,
)
