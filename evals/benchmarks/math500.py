"""MATH-500: 500 problems of the MATH test set, chosen for PRM800K.

Source: hub HuggingFaceH4/MATH-500; upstream file openai/prm800k, math_splits/test.jsonl (MIT), with
problem, solution, answer, subject, level, unique_id. An answer is the last box, compared as
mathematics by math-verify (upstream's own grader normalises text and asks sympy). Sampling as
DeepSeek-R1's card has it.
"""

from __future__ import annotations

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record
from evals.benchmarks.competition import PROMPT


def _problem(record: Record, number: int) -> Problem:
    return Problem(
        id=str(record.get("unique_id") or f"math500/{number}"),
        question=PROMPT.format(question=record["problem"]),
        answer=str(record["answer"]),
        grader="math:lenient",
        metadata={"subject": record.get("subject"), "level": record.get("level")},
    )


MATH500 = Benchmark(
    name="math500",
    title="MATH-500",
    version="2",
    hub=Hub(repo="HuggingFaceH4/MATH-500", split="test"),
    file="math500/test.jsonl",
    licence="MIT",
    problem=_problem,
    temperature=0.6,
    top_p=0.95,
    max_new_tokens=32_768,
)
