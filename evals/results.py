"""From stored samples to figures: grades, the benchmark's own metrics, intervals, votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NotRequired, TypedDict

from eapo_agents.errors import ErrorBudgetError
from eapo_agents.grading import Grade
from eapo_agents.grading.texts import normalise
from eapo_agents.types import Problem, StopReason, Trajectory
from evals.benchmark import Benchmark, GradePrediction, Item, Prediction
from evals.metrics import (
    PairedDifference,
    clustered_interval,
    paired_differences,
    pass_at_k,
    score_interval,
)
from evals.scoring import benchmark_metrics
from evals.sealing import open_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One graded answer."""

    problem_id: str
    rollout: int
    grade: Grade
    stop_reason: str
    tokens: int
    consultations: int

    def record(self) -> dict[str, Any]:
        """As a line of items.jsonl."""
        grade = self.grade
        return {
            "id": self.problem_id,
            "rollout": self.rollout,
            "score": grade.score,
            "correct": grade.correct,
            "formatted": grade.formatted,
            "extracted": None if grade.extracted is None else grade.extracted[:500],
            "details": dict(grade.details),
            "note": grade.note,
            "stop_reason": self.stop_reason,
            "tokens": self.tokens,
            "consultations": self.consultations,
        }


class BenchmarkResult(TypedDict):
    """One benchmark's figures in one mode, as results.json has them."""

    benchmark: str
    title: str
    metric: str
    """The one that is reported first."""
    score: float
    """That metric: the mean over problems of each problem's mean over its samples."""
    ci95: tuple[float, float]
    ci95_clustered: tuple[float, float]
    n: int
    """Problems."""
    samples: int
    """Of each problem."""
    metrics: dict[str, float]
    formatted: float
    cut_off: float
    sampled_tokens: int
    consultations: int
    seconds: float
    """Of answering and grading."""
    per_problem: dict[str, float]
    variance: NotRequired[float]
    """With several samples, as the two below: of a problem's samples, then the mean."""
    pass_at: NotRequired[dict[str, float]]
    majority: NotRequired[float]
    gap: NotRequired[PairedDifference]
    """assisted - solo, in a result with help."""


def grade_samples(
    benchmark: Benchmark,
    problems: Mapping[str, Problem],
    trajectories: Iterable[Trajectory],
    grader: GradePrediction,
    *,
    num_threads: int,
    max_error_share: float,
    on_graded: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """Grades every stored sample of these problems, in the order of problem and sample.

    Raises:
        ErrorBudgetError: more rollouts failed than allowed: they have no grade, and are not 0.
        GradingError: a grader failed.
    """
    found = [t for t in trajectories if t.problem.id in problems]
    failed = [t for t in found if t.error is not None]
    if len(failed) > max_error_share * len(found) or len(failed) == len(found):
        first = open_text(failed[0].error or "") if failed else "there is no sample"
        raise ErrorBudgetError(
            f"{len(failed)} of {len(found)} samples of {benchmark.title} failed (first: "
            f"{'sealed' if benchmark.sealed else first}), and at most {max_error_share:.0%} may: "
            "mend the cause, and run it again with another --out."
        )

    def one(trajectory: Trajectory) -> Sample:
        problem = problems[trajectory.problem.id]
        graded = grader(problem, Prediction(completion=answer_text(trajectory)))
        if benchmark.sealed:  # what is no letter may quote the question
            letter = graded.extracted if len(graded.extracted or "") == 1 else None
            graded = replace(graded, extracted=letter, note="")
        on_graded()
        return Sample(
            problem_id=problem.id,
            rollout=trajectory.rollout,
            grade=graded,
            stop_reason=trajectory.stop_reason.value,
            tokens=sum(len(turn.completion_ids) for turn in trajectory.turns),
            consultations=sum(len(turn.consultations) for turn in trajectory.turns),
        )

    with ThreadPoolExecutor(num_threads) as threads:
        samples = list(threads.map(one, [t for t in found if t.error is None]))
    order = {key: number for number, key in enumerate(problems)}
    return sorted(samples, key=lambda s: (order[s.problem_id], s.rollout))


def answer_text(trajectory: Trajectory) -> str:
    """What is graded: the answer, or an unfinished one, in which a box may stand already."""
    if trajectory.answer is not None:
        return open_text(trajectory.answer)
    if trajectory.stop_reason is StopReason.LENGTH and trajectory.turns:
        return open_text(trajectory.turns[-1].text)
    return ""


def summarise(
    benchmark: Benchmark, problems: Mapping[str, Problem], samples: Sequence[Sample]
) -> BenchmarkResult:
    """One benchmark's figures; `seconds` is added by who measured them."""
    by_problem: dict[str, list[Sample]] = {key: [] for key in problems}
    for sample in samples:
        by_problem[sample.problem_id].append(sample)
    by_problem = {key: found for key, found in by_problem.items() if found}
    values = {key: [_value(benchmark, s) for s in found] for key, found in by_problem.items()}
    per_problem = {key: sum(v) / len(v) for key, v in values.items()}
    items = [
        Item(problem=problems[key], grades=tuple(s.grade for s in found))
        for key, found in by_problem.items()
    ]
    num_samples = min(len(v) for v in values.values())
    result: BenchmarkResult = {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "metric": benchmark.metric,
        "score": sum(per_problem.values()) / len(per_problem),
        "ci95": score_interval(per_problem),
        "ci95_clustered": clustered_interval(values),
        "n": len(per_problem),
        "samples": num_samples,
        "metrics": benchmark_metrics(benchmark, items),
        "formatted": _share(s.grade.formatted for s in samples),
        "cut_off": _share(s.stop_reason == StopReason.LENGTH for s in samples),
        "sampled_tokens": sum(s.tokens for s in samples),
        "consultations": sum(s.consultations for s in samples),
        "seconds": 0.0,
        "per_problem": per_problem,
    }
    if num_samples > 1:
        # the paper's "variance"
        result["variance"] = sum(_variance(v) for v in values.values()) / len(values)
        result["pass_at"] = {
            str(k): _mean_pass(by_problem, num_samples, k) for k in _powers_of_two(num_samples)
        }
        result["majority"] = sum(_vote(found) for found in by_problem.values()) / len(by_problem)
    return result


def add_gaps(results: Mapping[str, BenchmarkResult]) -> None:
    """Add to each benchmark's assisted result what help is worth there, problem by problem."""
    pairs = {
        key: (results[solo]["per_problem"], result["per_problem"])
        for key, result in results.items()
        if key.endswith(" assisted") and (solo := key.replace(" assisted", " solo")) in results
    }
    for key, gap in paired_differences(pairs).items():
        results[key]["gap"] = gap


def _value(benchmark: Benchmark, sample: Sample) -> float:
    return sample.grade.details.get(benchmark.metric, float(sample.grade.correct))


def _variance(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sum((v - mean) ** 2 for v in values) / len(values)


def _mean_pass(by_problem: Mapping[str, Sequence[Sample]], num_samples: int, k: int) -> float:
    values = [
        pass_at_k(len(found), sum(s.grade.correct for s in found), k)
        for found in by_problem.values()
        if len(found) >= k
    ]
    return sum(values) / len(values)


def _vote(samples: Sequence[Sample]) -> float:
    """How right the most frequent answer is; the mean over those that are as frequent."""
    answers: dict[str, list[float]] = {}
    for sample in samples:
        if sample.grade.extracted is not None:
            answers.setdefault(normalise(sample.grade.extracted), []).append(sample.grade.score)
    if not answers:
        return 0.0
    votes = Counter({key: len(scores) for key, scores in answers.items()})
    most = max(votes.values())
    scores = [sum(answers[key]) / len(answers[key]) for key, n in votes.items() if n == most]
    return sum(scores) / len(scores)


def _powers_of_two(limit: int) -> list[int]:
    found = []
    k = 1
    while k <= limit:
        found.append(k)
        k *= 2
    return found


def _share(flags: Iterable[bool]) -> float:
    values = [bool(flag) for flag in flags]
    return sum(values) / len(values) if values else 0.0
