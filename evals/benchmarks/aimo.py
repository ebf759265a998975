"""AIMO: the ten reference problems of the AI Mathematical Olympiad's second progress prize.

Source: reference.csv (id, problem, answer) of the Kaggle competition
ai-mathematical-olympiad-progress-prize-2, whose terms must be accepted there. Answers are integers,
modulo 1000. Protocol as for AIME.
"""

from __future__ import annotations

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Record
from evals.benchmarks.competition import PROMPT


def _problem(record: Record, number: int) -> Problem:
    return Problem(
        id=str(record["id"]),
        question=PROMPT.format(
            question=record["problem"] + "\n\nGive the answer modulo 1000, as an integer."
        ),
        answer=str(int(record["answer"])),
        grader="math:lenient",
    )


AIMO = Benchmark(
    name="aimo",
    title="AIMO progress prize 2 (reference)",
    version="2",
    hub=None,
    file="aimo/reference.csv",
    licence="the competition's terms",
    obtain=(
        "Accept the terms of the Kaggle competition ai-mathematical-olympiad-progress-prize-2 and "
        "download its reference.csv."
    ),
    problem=_problem,
    temperature=0.6,
    top_p=0.95,
    max_new_tokens=32_768,
    samples=32,
    published={"EAPO, leaderboard": 49.08},
)
