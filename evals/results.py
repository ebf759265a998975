"""From stored answers to figures: grades, the benchmark's own metrics, intervals, votes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from eapo_agents.errors import ErrorBudgetError
from eapo_agents.grading import Grade
from eapo_agents.types import Problem, StopReason, Trajectory, total_known
from evals.benchmark import Benchmark, GradePrediction, Item, Prediction, mean
from evals.conditions import ASSISTED, SOLO, Condition, Part
from evals.metrics import (
    PairedDifference,
    clustered_interval,
    paired_differences,
    pass_at_k,
    score_interval,
)
from evals.scoring import benchmark_metrics, grade_all, refuse_undecided, variance
from evals.scoring import vote as majority
from evals.sealing import open_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One graded answer."""

    problem_id: str
    rollout: int
    grade: Grade
    stop_reason: str
    tokens: int | None
    """Sampled; None where a service did not count them."""
    consultations: int

    def record(self) -> dict[str, object]:
        """Return it as a line of items.jsonl has it."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The figures of one benchmark under one condition. Failed and missing answers have no part in
    any mean."""

    benchmark: str
    title: str
    condition: str
    metric: str
    """The one that is reported first."""
    score: float
    """That metric: the mean over problems of each problem's mean over its samples."""
    ci95: tuple[float, float]
    ci95_clustered: tuple[float, float]
    n: int
    """Problems with an answer."""
    samples: int
    """Answers of each problem."""
    missing: int
    """Answers that have not been sampled yet: the run was interrupted."""
    failed: int
    """Rollouts that failed."""
    run_again: int = 0
    """Answers whose first rollout failed, and that come from a later one."""
    undecided: int = 0
    """Answers that the grader could not decide in its limits; they count in no figure."""
    temperature: float
    metrics: dict[str, float]
    formatted: float
    """Share of answers from which something could be extracted."""
    cut_off: float
    """Share of answers that reached `max_new_tokens`."""
    asked: float
    """Share of answers for which an expert was asked."""
    sampled_tokens: int | None = None
    """None where a service did not count them."""
    consultations: int
    seconds: float = 0.0
    """Of answering and grading."""
    per_problem: dict[str, float]
    variance: float | None = None
    """With several samples, as the two below: of a problem's samples, then the mean."""
    pass_at: dict[str, float] | None = None
    majority: float | None = None
    gap: PairedDifference | None = None
    """assisted - solo, in the score with help."""
    published: dict[str, float] = field(default_factory=dict)
    """Figures of others for the benchmark, in percent."""

    @property
    def accuracy(self) -> float:
        """Return the mean over problems of the share of right answers; the score itself where the
        benchmark has no such metric."""
        return self.metrics.get("accuracy", self.score)

    def to_json(self) -> dict[str, object]:
        """Return everything, as results.json has it."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def summary(self) -> dict[str, object]:
        """Return everything but the single problems."""
        return {key: value for key, value in self.to_json().items() if key != "per_problem"}


def grade_answers(
    part: Part,
    condition: Condition,
    trajectories: Iterable[Trajectory],
    grader: GradePrediction,
    *,
    num_threads: int,
    max_error_share: float,
    on_graded: Callable[[], None] = lambda: None,
) -> tuple[list[Sample], Score]:
    """Grade the stored answers of a part, in the order of problem and sample.

    Raises:
        ErrorBudgetError: more rollouts failed than allowed: they have no grade, and are not 0.
        GradingError: a grader failed.
    """
    benchmark = part.benchmark
    known = {problem.id for problem in part.loaded.problems}
    found = [t for t in trajectories if t.problem.id in known and t.rollout < condition.samples]
    failed = [t for t in found if t.error is not None]
    _refuse_failures(benchmark, failed, len(found), max_error_share)
    answered = [t for t in found if t.error is None]
    jobs = graded_answers(part, condition, answered)
    grades = grade_all(jobs, grader, num_threads=num_threads, on_graded=on_graded)
    graded = list(zip(answered, grades, strict=True))
    decided = [(t, grade) for t, grade in graded if not grade.undecided]
    refuse_undecided(grades, max_error_share, benchmark.title)
    samples = [_sample(t, _sealed(g) if benchmark.sealed else g) for t, g in decided]
    order = {problem.id: number for number, problem in enumerate(part.loaded.problems)}
    samples.sort(key=lambda s: (order[s.problem_id], s.rollout))
    missing = part.num_answers(condition) - len(found)
    score = _score(part, condition, samples, missing=missing, failed=len(failed))
    return samples, replace(score, undecided=len(graded) - len(decided))


def graded_answers(
    part: Part, condition: Condition, trajectories: Iterable[Trajectory]
) -> list[tuple[Problem, Prediction]]:
    """Return what is graded of the trajectories that did not fail, with its problem."""
    problems = {problem.id: problem for problem in part.loaded.problems}
    return [
        (problems[t.problem.id], Prediction(completion=answer_text(t, part.benchmark)))
        for t in trajectories
        if t.problem.id in problems and t.rollout < condition.samples and t.error is None
    ]


def _refuse_failures(
    benchmark: Benchmark, failed: Sequence[Trajectory], num_found: int, max_error_share: float
) -> None:
    if num_found and len(failed) <= max_error_share * num_found and len(failed) < num_found:
        return
    first = open_text(failed[0].error or "") if failed else "there is no answer"
    raise ErrorBudgetError(
        f"{len(failed)} of {num_found} rollouts of {benchmark.title} failed (first: "
        f"{'sealed' if benchmark.sealed else first}), and at most {max_error_share:.0%} may: "
        "mend the cause, and run it again with another --out."
    )


def answer_text(trajectory: Trajectory, benchmark: Benchmark) -> str:
    """Return what is graded: the answer, or what there is of one that was cut off."""
    if trajectory.answer is not None:
        return open_text(trajectory.answer)
    cut_off = trajectory.stop_reason is StopReason.LENGTH and trajectory.turns
    if cut_off and benchmark.grades_unfinished:
        return open_text(trajectory.turns[-1].text)
    return ""


def _sealed(grade: Grade) -> Grade:
    """Return the grade without what may quote the question: all but a letter."""
    letter = grade.extracted if len(grade.extracted or "") == 1 else None
    return replace(grade, extracted=letter, note="")


def _sample(trajectory: Trajectory, grade: Grade) -> Sample:
    return Sample(
        problem_id=trajectory.problem.id,
        rollout=trajectory.rollout,
        grade=grade,
        stop_reason=trajectory.stop_reason.value,
        tokens=total_known(turn.num_sampled for turn in trajectory.turns),
        consultations=sum(len(turn.consultations) for turn in trajectory.turns),
    )


def _score(
    part: Part, condition: Condition, samples: Sequence[Sample], *, missing: int, failed: int
) -> Score:
    benchmark = part.benchmark
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample.problem_id, []).append(sample)
    items = [
        Item(problem=problem, grades=tuple(s.grade for s in by_problem[problem.id]))
        for problem in part.loaded.problems
        if problem.id in by_problem
    ]
    values = {key: [_value(benchmark, s) for s in found] for key, found in by_problem.items()}
    per_problem = {key: mean(v) for key, v in values.items()}
    score = Score(
        benchmark=benchmark.name,
        title=benchmark.title,
        condition=condition.name,
        metric=benchmark.metric,
        score=mean(list(per_problem.values())),
        ci95=score_interval(per_problem),
        ci95_clustered=clustered_interval(values),
        n=len(per_problem),
        samples=condition.samples,
        missing=missing,
        failed=failed,
        temperature=condition.sampling.temperature,
        metrics=benchmark_metrics(benchmark, items),
        formatted=_share(s.grade.formatted for s in samples),
        cut_off=_share(s.stop_reason == StopReason.LENGTH for s in samples),
        asked=_share(s.consultations > 0 for s in samples),
        sampled_tokens=total_known(s.tokens for s in samples),
        consultations=sum(s.consultations for s in samples),
        per_problem=per_problem,
        published=dict(benchmark.published),
    )
    return _of_several(score, by_problem, values) if condition.samples > 1 else score


def _of_several(
    score: Score,
    by_problem: Mapping[str, Sequence[Sample]],
    values: Mapping[str, Sequence[float]],
) -> Score:
    """Return the score with what several samples of each problem tell."""
    least = min(map(len, by_problem.values()))
    return replace(
        score,
        # the paper's "variance"
        variance=mean([variance(v) for v in values.values()]),
        pass_at={str(k): _mean_pass(by_problem, k) for k in _powers_of_two(least)},
        majority=mean([vote(found) for found in by_problem.values()]),
    )


def with_gaps(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Return the scores; each assisted one has what help is worth there, problem by problem."""
    solo = {s.benchmark: s for s in scores.values() if s.condition == SOLO}
    pairs = {
        key: (solo[s.benchmark].per_problem, s.per_problem)
        for key, s in scores.items()
        if s.condition == ASSISTED and s.benchmark in solo
        if not s.missing and not solo[s.benchmark].missing
        if s.per_problem.keys() == solo[s.benchmark].per_problem.keys()
    }
    gaps = paired_differences(pairs)
    return {key: replace(score, gap=gaps.get(key)) for key, score in scores.items()}


def _value(benchmark: Benchmark, sample: Sample) -> float:
    return sample.grade.details.get(benchmark.metric, float(sample.grade.correct))


def _mean_pass(by_problem: Mapping[str, Sequence[Sample]], k: int) -> float:
    return mean(
        [pass_at_k(len(v), sum(s.grade.correct for s in v), k) for v in by_problem.values()]
    )


def vote(samples: Sequence[Sample]) -> float:
    """Return how right the most frequent answer of several samples is."""
    return majority([sample.grade for sample in samples])


def _powers_of_two(limit: int) -> list[int]:
    return [2**k for k in range(limit.bit_length())]


def _share(flags: Iterable[bool]) -> float:
    return mean([float(flag) for flag in flags])
