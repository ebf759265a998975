"""`eapo score`: upstream's figure for answers that were made elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from eapo_agents.errors import BenchmarkError, ErrorBudgetError, GradingError
from eapo_agents.grading import Grade, same_answer
from eapo_agents.types import Problem
from evals.benchmark import Benchmark, GradePrediction, Item, Loaded, Prediction, mean
from evals.metrics import pass_at_k

_DETAIL_METRICS = {"base": "base_pass@", "plus": "plus_pass@"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Graded items."""

    benchmark: Benchmark
    items: tuple[Item, ...]
    undecided: int = 0
    """Answers that the grader could not decide; they and their problems count in no figure."""

    def metrics(self) -> dict[str, float]:
        """Return all that upstream's script reports."""
        return benchmark_metrics(self.benchmark, self.items)


def score(
    benchmark: Benchmark,
    loaded: Loaded,
    predictions: Mapping[str, tuple[Prediction, ...]],
    *,
    grader: GradePrediction | None = None,
    num_threads: int = 1,
    on_graded: Callable[[], None] = lambda: None,
) -> Scored:
    """Grade every prediction.

    Args:
        predictions: problem id -> its samples. grader: where the benchmark's own needs a judge.

    Raises:
        GradingError: a grader failed; nothing is counted as wrong for want of a grade.
        ErrorBudgetError: more than a hundredth of the verdicts are undecided.
    """
    grader = grader or benchmark.grader(loaded)
    jobs = answers(loaded, predictions)
    grades = grade_all(jobs, grader, num_threads=num_threads, on_graded=on_graded)
    undecided = {p.id for (p, _), g in zip(jobs, grades, strict=True) if g.undecided}
    refuse_undecided(grades, 0.01, benchmark.title)
    by_problem: dict[str, list[Grade]] = {}
    for (problem, _), graded in zip(jobs, grades, strict=True):
        if not graded.undecided:
            by_problem.setdefault(problem.id, []).append(graded)
    items = tuple(
        Item(problem=p, grades=tuple(by_problem.get(p.id, ())))
        for p in loaded.problems
        if p.id in by_problem or p.id not in undecided
    )
    if benchmark.judged:  # upstream's scripts for these go through the predictions
        order = {key: number for number, key in enumerate(predictions)}
        items = tuple(sorted(items, key=lambda item: order.get(item.problem.id, len(order))))
    return Scored(benchmark=benchmark, items=items, undecided=sum(g.undecided for g in grades))


def answers(
    loaded: Loaded, predictions: Mapping[str, tuple[Prediction, ...]]
) -> list[tuple[Problem, Prediction]]:
    """Return each prediction with its problem, in the problems' order."""
    return [(p, prediction) for p in loaded.problems for prediction in predictions.get(p.id, ())]


def refuse_undecided(grades: Sequence[Grade], max_share: float, title: str) -> None:
    """Raise ErrorBudgetError where more verdicts are missing than allowed."""
    undecided = [grade for grade in grades if grade.undecided]
    if len(undecided) > max_share * len(grades):
        said = undecided[0].note or "The grader's limits ended the comparison."
        raise ErrorBudgetError(
            f"{len(undecided)} of {len(grades)} answers to {title} could not be graded (first: "
            f"{said}), and at most {max_share:.0%} may: grade them again, on a machine with less "
            "load or with a judge that follows instructions."
        )


def grade_all(
    jobs: Sequence[tuple[Problem, Prediction]],
    grader: GradePrediction,
    *,
    num_threads: int = 1,
    on_graded: Callable[[], None] = lambda: None,
) -> list[Grade]:
    """Grade predictions, several at once; the grades are in the order of the predictions.

    Raises:
        GradingError: a grader failed.
    """

    def run(job: tuple[Problem, Prediction]) -> Grade:
        try:
            graded = grader(*job)
        except RecursionError as error:
            raise GradingError(f"The answer to '{job[0].id}' cannot be graded: {error}.") from error
        on_graded()
        return graded

    # the longest first, so that the last ones do not leave cores idle
    expected_seconds = getattr(grader, "expected_seconds", lambda problem: 0.0)
    order = sorted(range(len(jobs)), key=lambda i: -expected_seconds(jobs[i][0]))
    with ThreadPoolExecutor(num_threads) as threads:
        found = dict(zip(order, threads.map(run, (jobs[i] for i in order)), strict=True))
    return [found[i] for i in range(len(jobs))]


def benchmark_metrics(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, float]:
    """The benchmark's own metrics, and pass@k where it has that."""
    if not benchmark.pass_at:
        return benchmark.metrics(items) | _of_samples(benchmark, items)
    counts = [len(item.grades) for item in items]
    found: dict[str, float] = {}
    with_details = any(g.details for item in items for g in item.grades)
    for k in benchmark.pass_at:
        if not counts or min(counts) < k:
            continue
        if not with_details:
            found[f"pass@{k}"] = _mean_pass(items, k, None)
            continue
        for detail, name in _DETAIL_METRICS.items():
            found[f"{name}{k}"] = _mean_pass(items, k, detail)
    return found


def _of_samples(benchmark: Benchmark, items: Sequence[Item]) -> dict[str, float]:
    """What several samples of a right-or-wrong benchmark tell: mean@n, pass@n, maj@n and the
    variance of a problem's samples, for the smallest number n > 1 of samples that a problem has.
    Each problem weighs the same; the first n vote."""
    n = min((len(item.grades) for item in items), default=0)
    if n < 2 or benchmark.metric != "accuracy":
        return {}
    return {
        f"mean@{n}": mean([item.score for item in items]),
        f"pass@{n}": _mean_pass(items, n, None),
        f"maj@{n}": mean([vote(item.grades[:n]) for item in items]),
        "variance": mean([variance([float(g.correct) for g in i.grades]) for i in items]),
    }


def variance(values: Sequence[float]) -> float:
    """Return the mean squared distance to the mean."""
    return mean([(value - mean(values)) ** 2 for value in values])


def vote(grades: Sequence[Grade]) -> float:
    """Return how right the most frequent answer is; the mean over those that are as frequent.

    Answers that the grader holds equal are one answer. Right answers are all equal to the
    gold one.
    """
    right = [grade.score for grade in grades if grade.correct]
    groups: list[tuple[str, list[float]]] = [("", right)] if right else []
    for grade in grades:
        if grade.extracted is None or grade.correct:
            continue
        for first, scores in groups[bool(right) :]:
            if same_answer(first, grade.extracted, grade.grader):
                scores.append(grade.score)
                break
        else:
            groups.append((grade.extracted, [grade.score]))
    most = max((len(scores) for _, scores in groups), default=0)
    return mean([mean(scores) for _, scores in groups if len(scores) == most])


def refuse_ungraded(
    predictions: Mapping[str, tuple[Prediction, ...]], benchmark: Benchmark
) -> None:
    """Raises BenchmarkError where a judge is needed and there is none."""
    for samples in predictions.values():
        if any(sample.verdict is None for sample in samples):
            raise BenchmarkError(
                f"{benchmark.title} is graded by a judge: name one of the recipe's experts with "
                "--judge EXPERT, or give each prediction's grade (A, B or C)."
            )


def _mean_pass(items: Sequence[Item], k: int, detail: str | None) -> float:
    values = []
    for item in items:
        right = sum(
            g.correct if detail is None else g.details.get(detail, 0.0) >= 1.0 for g in item.grades
        )
        values.append(pass_at_k(len(item.grades), int(right), k))
    return sum(values) / len(values)


def listed(item: Item, names: Mapping[str, str]) -> dict[str, object]:
    """Return an item for people and programs; `names` are the ids that the predictions have."""
    found: dict[str, object] = {
        "id": names.get(item.problem.id, item.problem.id),
        "score": item.score,
    }
    if not item.grades:
        return {**found, "missing": True}
    if len(item.grades) == 1:
        found |= item.grades[0].details
    else:
        found["samples"] = [g.score for g in item.grades]
    notes = [g.note for g in item.grades if g.note]
    return {**found, "note": notes[0]} if notes else found
