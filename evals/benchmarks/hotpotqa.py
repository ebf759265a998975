"""HotpotQA: questions over two Wikipedia paragraphs, with the paragraphs among ten (distractor) or
without any (closed book).

Source: hub hotpotqa/hotpot_qa, config distractor, split validation; upstream file
hotpot_dev_distractor_v1.json (CC BY-SA 4.0). Scored as hotpot_evaluate_v1.py does (Apache-2.0): EM,
F1, precision and recall of the answer; of the supporting facts, as sets of (title, sentence); and
of both together, where precision and recall are products. Every sum is divided by the number of
gold records, so a missing prediction counts 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from eapo_agents.grading import Grade, grade, grade_answer
from eapo_agents.types import Problem
from evals.benchmark import (
    Benchmark,
    GradePrediction,
    Hub,
    Item,
    Loaded,
    Prediction,
    Record,
    mean_details,
)

CLOSED_PROMPT = "{question}\n\nEnd with 'Answer: ' and the answer, in as few words as possible."
PROMPT = "{context}\n\n" + CLOSED_PROMPT
_ANSWER = ("em", "f1", "prec", "recall")
_FACTS = tuple(f"sp_{name}" for name in _ANSWER)
_JOINT = tuple(f"joint_{name}" for name in _ANSWER)


def _facts(record: Record) -> list[tuple[str, int]]:
    found = record["supporting_facts"]
    if isinstance(found, dict):  # the hub's columns
        return list(zip(found["title"], found["sent_id"], strict=True))
    return [(title, sentence) for title, sentence in found]


def _context(record: Record) -> str:
    found = record["context"]
    pairs = (
        zip(found["title"], found["sentences"], strict=True) if isinstance(found, dict) else found
    )
    return "\n\n".join(f"{title}\n{''.join(sentences).strip()}" for title, sentences in pairs)


def _make(record: Record, question: str) -> Problem:
    return Problem(
        id=str(record.get("_id") or record["id"]),
        question=question,
        answer=str(record["answer"]),
        grader="f1:lenient",
        metadata={"supporting_facts": [list(fact) for fact in _facts(record)]},
    )


def _distractor(record: Record, number: int) -> Problem:
    question = str(record["question"])
    return _make(record, PROMPT.format(context=_context(record), question=question))


def _closed_book(record: Record, number: int) -> Problem:
    return _make(record, CLOSED_PROMPT.format(question=str(record["question"])))


def _grader(loaded: Loaded) -> GradePrediction:
    return grade_with_facts


def grade_with_facts(problem: Problem, prediction: Prediction) -> Grade:
    """Grade the answer and, if they are given, the supporting facts."""
    if prediction.completion is not None:
        graded = grade(prediction.completion, problem)
    elif prediction.answer is not None:
        graded = grade_answer(prediction.answer, problem)
    else:
        graded = Grade(score=0.0, formatted=False)
    details = dict(graded.details)
    if prediction.supporting_facts is not None:
        gold = {(title, number) for title, number in problem.metadata["supporting_facts"]}
        details |= facts_details(set(prediction.supporting_facts), gold)
        if prediction.answer is not None:
            details |= joint_details(details)
    return Grade(
        score=graded.score,
        formatted=graded.formatted,
        extracted=graded.extracted,
        details=details,
    )


def facts_details(given: set[tuple[str, int]], gold: set[tuple[str, int]]) -> dict[str, float]:
    """Return EM, F1, precision and recall of the supporting facts."""
    right = len(given & gold)
    precision = right / len(given) if given else 0.0
    recall = right / len(gold) if gold else 0.0
    return {
        "sp_em": float(given == gold),
        "sp_f1": _harmonic(precision, recall),
        "sp_prec": precision,
        "sp_recall": recall,
    }


def joint_details(details: dict[str, float]) -> dict[str, float]:
    """Return EM, F1, precision and recall of answer and supporting facts together."""
    precision = details["prec"] * details["sp_prec"]
    recall = details["recall"] * details["sp_recall"]
    return {
        "joint_em": details["em"] * details["sp_em"],
        "joint_f1": _harmonic(precision, recall),
        "joint_prec": precision,
        "joint_recall": recall,
    }


def _harmonic(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def metrics(items: Sequence[Item]) -> dict[str, float]:
    """Return the answer's means, and where facts are given theirs and the joint ones."""
    names = list(_ANSWER)
    given = {name for item in items for graded in item.grades for name in graded.details}
    names += [name for name in (*_FACTS, *_JOINT) if {"sp_em"} & given]
    return mean_details(*names)(items)


DISTRACTOR = Benchmark(
    name="hotpotqa",
    title="HotpotQA (distractor)",
    version="1",
    hub=Hub(repo="hotpotqa/hotpot_qa", config="distractor", split="validation"),
    file="hotpotqa/hotpot_dev_distractor*.json",
    licence="CC BY-SA 4.0",
    problem=_distractor,
    metric="f1",
    metrics=metrics,
    grader=_grader,
    ignores_unknown=True,
    max_new_tokens=256,
)
CLOSED_BOOK = replace(
    DISTRACTOR,
    name="hotpotqaclosed",
    title="HotpotQA (closed book)",
    problem=_closed_book,
    published={"EAPO, leaderboard (F1)": 23.75},
)
