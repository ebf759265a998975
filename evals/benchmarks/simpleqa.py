"""SimpleQA: 4,326 short questions of fact, each answer correct, incorrect or not attempted.

Source: hub basicv8vc/SimpleQA; upstream file simple_qa_test_set.csv of openai/simple-evals (MIT),
with metadata, problem, answer. A judge gives A (correct), B (incorrect) or C (not attempted), by
rules that are ours in wording and upstream's in substance. Metrics as upstream's: `correct` over
all questions, `given_attempted` (correct of those attempted), and their harmonic mean, `f_score`.
A missing answer is not attempted.
"""

from __future__ import annotations

from collections.abc import Sequence

from eapo_agents.types import Problem
from evals.benchmark import Benchmark, Hub, Item, Record
from evals.judge import given_verdict


def _problem(record: Record, number: int) -> Problem:
    return Problem(
        id=f"simpleqa/{number}",
        question=str(record["problem"]),
        answer=str(record["answer"]),
        grader="judge",
        metadata={"judge": "attempted", "asked": str(record["problem"])},
    )


def metrics(items: Sequence[Item]) -> dict[str, float]:
    """Return upstream's metrics, over the mean of each question's answers."""

    def mean(name: str, if_missing: float) -> float:
        shares = [
            sum(g.details[name] for g in item.grades) / len(item.grades)
            if item.grades
            else if_missing
            for item in items
        ]
        return sum(shares) / len(shares) if shares else 0.0

    correct, incorrect = mean("correct", 0.0), mean("incorrect", 0.0)
    attempted = correct + incorrect
    given = correct / attempted if attempted > 0 else 0.0
    return {
        "correct": correct,
        "incorrect": incorrect,
        "not_attempted": mean("not_attempted", 1.0),
        "given_attempted": given,
        "f_score": 2 * given * correct / (given + correct) if given + correct > 0 else 0.0,
    }


SIMPLEQA = Benchmark(
    name="simpleqa",
    title="SimpleQA",
    version="1",
    hub=Hub(repo="basicv8vc/SimpleQA", split="test"),
    file="simpleqa/simple_qa_test_set.csv",
    licence="MIT",
    problem=_problem,
    metric="correct",
    metrics=metrics,
    judged=True,
    grader=lambda loaded: given_verdict,
    max_new_tokens=256,
)
