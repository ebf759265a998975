"""Humanity's Last Exam, the questions without an image.

Source: hub cais/hle (MIT), gated. Each question has an exact answer or is a multiple choice; a
judge compares, as upstream does. Upstream's prompt asks for explanation, answer and confidence.
"""

from __future__ import annotations

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Record
from evals.judge import given_verdict

PROMPT = (
    "{question}\n\nGive a short explanation, then a line 'Answer: ' with your final answer, then a "
    "line 'Confidence: ' with a percentage."
)


def _problem(record: Record, number: int) -> Problem | None:
    if record.get("image"):
        return None
    return Problem(
        id=str(record.get("id") or f"hle/{number}"),
        question=PROMPT.format(question=str(record["question"])),
        answer=str(record["answer"]),
        grader="judge",
        metadata={"judge": "correct", "asked": str(record["question"])},
    )


HLE = Benchmark(
    name="hle",
    title="Humanity's Last Exam (text only)",
    version="1",
    hub=Hub(repo="cais/hle", split="test"),
    file="hle/*",
    licence="MIT; gated",
    obtain=(
        "It is gated: accept its terms at huggingface.co/datasets/cais/hle, log in (hf auth "
        "login), and run the command again."
    ),
    problem=_problem,
    judged=True,
    grader=lambda loaded: given_verdict,
    max_new_tokens=8_192,
    published={"EAPO, leaderboard": 16.07},
)
