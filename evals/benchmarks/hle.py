"""Humanity's Last Exam; a policy answers the questions without an image.

Source: hub cais/hle (MIT), gated. Upstream asks for an explanation, an answer and a confidence. A
judge then finds the answer in the response, compares it with the right one, and reads the
confidence (centerforaisafety/hle, run_judge_results.py). The metrics are that script's: accuracy
over all questions with Wald's half-width, and the calibration error of the judged answers.
`*_percent` is what it prints, rounded as there. An image's question counts in `eapo score` where
the predictions answer one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Item, Record
from evals.judge import given_verdict
from evals.metrics import calibration_error

PROMPT = (
    "{question}\n\nReply in this form, each part on a line that begins with its name:\n"
    "Explanation: why your answer is right\n{answer}: your final answer, in few words\n"
    "Confidence: how sure you are of it, from 0% to 100%"
)


def _problem(record: Record, number: int) -> Problem:
    exact = str(record.get("answer_type") or "").startswith("exact")
    question = str(record["question"])
    return Problem(
        id=str(record.get("id") or f"hle/{number}"),
        question=PROMPT.format(question=question, answer="Exact Answer" if exact else "Answer"),
        answer=str(record["answer"]),
        grader="judge",
        metadata={"judge": "correct", "asked": question, "image": bool(record.get("image"))},
    )


def metrics(items: Sequence[Item]) -> dict[str, float]:
    """Return upstream's figures, as shares and as its script prints them.

    Args:
        items: in the order of the predictions, on which equal confidences depend.
    """
    if not items:
        return {"accuracy": 0.0}
    right = sum(sum(g.correct for g in i.grades) / len(i.grades) for i in items if i.grades)
    percent = round(100 * right / len(items), 2)
    found = {
        "accuracy": right / len(items),
        "half_width": 1.96 * math.sqrt(percent * (100 - percent) / len(items)) / 100,
        "accuracy_percent": percent,
        "half_width_percent": round(1.96 * math.sqrt(percent * (100 - percent) / len(items)), 2),
    }
    judged = [g for item in items for g in item.grades if "confidence" in g.details]
    error = calibration_error(
        [g.details["confidence"] / 100 for g in judged], [g.correct for g in judged]
    )
    if error is not None:
        found |= {"calibration_error": error, "calibration_error_percent": 100 * round(error, 2)}
    return found


HLE = Benchmark(
    name="hle",
    title="Humanity's Last Exam",
    version="2",
    hub=Hub(repo="cais/hle", split="test"),
    file="hle/*",
    licence="MIT; gated",
    obtain=(
        "It is gated: accept its terms at huggingface.co/datasets/cais/hle, log in (hf auth "
        "login), and run the command again."
    ),
    problem=_problem,
    metrics=metrics,
    judged=True,
    grader=lambda loaded: given_verdict,
    max_new_tokens=8_192,
    published={"EAPO, leaderboard": 16.07},
)
