"""AIME 2024: 30 problems of the American Invitational Mathematics Examination, answers 0 to 999.

Source: hub HuggingFaceH4/aime_2024; upstream file of NVIDIA/NeMo-Skills (id, problem,
expected_answer; Apache-2.0). The problems are the Mathematical Association of America's. Protocol:
the EAPO paper samples 32 answers a problem and reports their mean accuracy ("Pass@32") with its
variance; temperature 0.6, top-p 0.95 and 32,768 tokens are DeepSeek-R1's. An answer is the last
box, compared as mathematics.
"""

from __future__ import annotations

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record
from evals.benchmarks.competition import PROMPT, first_of


def _problem(record: Record, number: int) -> Problem:
    return Problem(
        id=str(record.get("id") or f"aime24-{number}"),
        question=PROMPT.format(question=first_of(record, "problem", "question")),
        answer=str(int(first_of(record, "expected_answer", "answer"))),
        grader="math:lenient",
    )


AIME24 = Benchmark(
    name="aime24",
    title="AIME 2024",
    version="2",
    hub=Hub(repo="HuggingFaceH4/aime_2024", split="train"),
    file="aime24/*.jsonl",
    licence="Apache-2.0 (file); problems: MAA",
    problem=_problem,
    temperature=0.6,
    top_p=0.95,
    max_new_tokens=32_768,
    samples=32,
    published={"EAPO, leaderboard": 53.84},
)
