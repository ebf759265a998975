"""What a benchmark is: problems, a prompt, a protocol, a grader and metrics, each with its
source."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from eapo_agents.errors import BenchmarkError
from eapo_agents.grading import Grade, grade, grade_answer
from eapo_agents.types import Problem

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """Where the Hugging Face hub has the problems."""

    repo: str
    split: str
    config: str | None = None
    streamed: bool = False
    """Never written to the hub's cache: read into memory only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a judge says of an answer."""

    name: Literal["correct", "incorrect", "not_attempted"]
    confidence: float | None = None
    """HLE: the confidence that the answer states, in percent; 100 where it states none."""
    extracted: str | None = None
    """HLE: the final answer that the judge found in the answer."""
    reasoning: str = ""
    """HLE: why. Untrusted text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer that was made, here or elsewhere; one of the first three is given."""

    completion: str | None = None
    """All that a model wrote."""
    answer: str | None = None
    """The answer alone, or a whole program."""
    continuation: str | None = None
    """Code that continues a code benchmark's prompt."""
    verdict: Verdict | None = None
    """A judge's, where one has judged already."""
    options: Sequence[str] | None = None
    """Multiple choice: the options in the order that the model saw, if not the problem's."""
    supporting_facts: Sequence[tuple[str, int]] | None = None
    """HotpotQA: (title, sentence) pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A problem with the grades of its answers."""

    problem: Problem
    grades: tuple[Grade, ...]
    """One for each answer; empty where nothing was answered, which counts as `missing` says."""

    @property
    def score(self) -> float:
        """Mean over the answers; 0 without any."""
        return sum(g.score for g in self.grades) / len(self.grades) if self.grades else 0.0


class GradePrediction(Protocol):
    """Grades one prediction; thread-safe."""

    def __call__(self, problem: Problem, prediction: Prediction) -> Grade: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A benchmark's problems as they were read."""

    problems: tuple[Problem, ...]
    records: tuple[Record, ...]
    """Upstream's, in the problems' order."""
    origin: str
    """File or hub repository."""
    digest: str
    """SHA-256 of the records; runs over other data are not compared."""


def accuracy(items: Sequence[Item]) -> dict[str, float]:
    """Mean over problems of the share of right answers."""
    return {"accuracy": mean([_share_correct(item) for item in items])}


def _share_correct(item: Item) -> float:
    return mean([float(g.correct) for g in item.grades])


def mean(values: Sequence[float]) -> float:
    """Return the mean, and 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def mean_details(*names: str) -> Callable[[Sequence[Item]], dict[str, float]]:
    """Metrics that are means over all problems of these details; a missing answer counts 0."""

    def metrics(items: Sequence[Item]) -> dict[str, float]:
        return {
            name: mean([mean([g.details.get(name, 0.0) for g in item.grades]) for item in items])
            for name in names
        }

    return metrics


def grade_by_name(problem: Problem, prediction: Prediction) -> Grade:
    """By the grader that the problem names."""
    if prediction.options is not None and "choices" in problem.metadata:
        problem = with_options(problem, prediction.options)
    if prediction.completion is not None:
        return grade(prediction.completion, problem)
    return grade_answer(prediction.answer or "", problem)


def with_options(problem: Problem, options: Sequence[str]) -> Problem:
    """Return a multiple choice with its options in the order that the model saw."""
    right = problem.metadata["choices"][string.ascii_uppercase.index(problem.answer)]
    place = ["".join(option.split()) for option in options].index("".join(right.split()))
    metadata = {**problem.metadata, "choices": list(options)}
    return replace(problem, answer=string.ascii_uppercase[place], metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """One benchmark. Every instance stands in a module whose docstring gives the sources."""

    name: str
    title: str
    version: str
    """Of prompt, extraction and protocol; raised with each change, so that runs are not mixed."""
    is_task: bool = False
    """Whether it is a recipe's task."""
    hub: Hub | None = None
    file: str = ""
    """Where upstream's file lies in the folder that EAPO_DATA names; a glob."""
    licence: str = ""
    obtain: str = ""
    """How to get the data where the hub alone will not do."""
    problem: Callable[[Record, int], Problem | None] = field(default=lambda record, number: None)
    """Upstream's record and its number -> a problem; None leaves it out."""
    system_prompt: str = ""
    """Of a task. The prompts of upstream's benchmarks are whole."""
    examples: tuple[tuple[str, str], ...] = ()
    """Questions and answers that are shown before each problem."""
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    max_assisted_tokens: int | None = None
    """Of a turn with experts, where it is another number."""
    samples: int = 1
    greedy: bool = False
    """Whether each problem is answered greedily too, as a separate condition."""
    grades_unfinished: bool = True
    """Whether an answer that was cut off is graded by what there is of it, such as a box."""
    metric: str = "accuracy"
    """The one that is reported first."""
    metrics: Callable[[Sequence[Item]], dict[str, float]] = accuracy
    pass_at: tuple[int, ...] = ()
    """k of the unbiased pass@k that upstream reports."""
    grader: Callable[[Loaded], GradePrediction] = field(default=lambda loaded: grade_by_name)
    """What grades its predictions; made once for the data at hand."""
    judged: bool = False
    """Whether grading needs a judge."""
    runs_code: bool = False
    """Whether grading runs what the model wrote."""
    needs_all: bool = False
    """Upstream's script refuses predictions that leave problems out; else they count as wrong."""
    ignores_unknown: bool = False
    """Upstream's script leaves out predictions for problems that it does not have."""
    sealed: bool = False
    """Its text must not be written out in plain: prompts and answers are stored sealed."""
    read: Callable[[Path], list[Record]] | None = None
    """Reads upstream's file where its format is not a common one."""
    arrange: Callable[[list[Record]], list[Record]] = field(default=lambda records: records)
    """What upstream does to all records together, such as shuffling options."""
    published: Mapping[str, float] = field(default_factory=dict)
    """Figures of the EAPO paper and its leaderboard for this benchmark, in percent."""

    def make_problems(self, records: Sequence[Record], origin: str) -> list[Problem | None]:
        """Problems of records.

        Raises:
            BenchmarkError: names the first record that is not as upstream has it.
        """
        problems = []
        for number, record in enumerate(records):
            try:
                problems.append(self.problem(record, number))
            except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                raise BenchmarkError(
                    f"Record {number} of '{origin}' is not as {self.title} has it "
                    f"({type(error).__name__}: {error}): give upstream's own file ({self.file})."
                ) from error
        return problems
