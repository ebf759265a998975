"""Grading: at the end of every evaluation, again from what was kept, and of answers made
elsewhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import BenchmarkError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import TRACES, expert_file

if TYPE_CHECKING:
    from eapo_agents.experts.pool import ExpertPool
    from eapo_agents.types import Trajectory
    from evals.benchmark import Benchmark
    from evals.compare import Comparison
    from evals.conditions import Condition, Part
    from evals.judge import Judge
    from evals.page import Page
    from evals.results import Sample, Score
    from evals.run_folder import Results, RunSettings

SECONDS = "seconds.json"
_JUDGED_AT_ONCE = 16
"""A judge is waited for, not worked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A graded evaluation, as its folder has it."""

    out: Path
    settings: RunSettings
    results: Results
    paired: Comparison | None = None
    """The difference to an earlier evaluation."""

    @property
    def scores(self) -> Mapping[str, Score]:
        """By key, such as `gsm8k solo`."""
        return self.results.results

    def to_json(self) -> dict[str, object]:
        """Return everything but the single problems."""
        found = {
            **self.results.to_json(),
            "results": {key: score.summary() for key, score in self.scores.items()},
            "out": str(self.out),
        }
        if self.paired is not None:
            found["paired"] = self.paired.to_json()["benchmarks"]
        return found


def grade_run(
    out: Path,
    settings: RunSettings,
    parts: Sequence[Part],
    judge: Judge | None,
    *,
    again: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Grade what is stored, and write items, results and reports. Results of other benchmarks in
    the folder stay.

    What an interrupted run has is graded; how many answers are missing stands beside each figure.
    """
    from eapo_agents.store import TraceStore
    from eapo_agents.store.browsing import StoreBrowser
    from evals.bench_report import benchmark_page
    from evals.results import with_gaps
    from evals.run_folder import Record, Results, read_items, read_results, write_results

    before, items = read_results(out), read_items(out)
    scores = dict(before.results) if before else {}
    missing = dict(before.missing) if before else {}
    changed: dict[str, list[str]] = {}
    seconds = recorded_seconds(out)
    with (
        TraceStore.open(str(out / TRACES)) as store,
        StoreBrowser.look_into(out / TRACES) as browser,
    ):
        for part, condition in ((p, c) for p in parts for c in p.conditions):
            key = part.key(condition)
            stored = [s.trajectory for s in store.trajectories(run_id=key)]
            missing[key] = part.num_answers(condition)
            if not stored:
                continue
            graded = _grade(part, condition, stored, settings, judge, progress)
            records: list[Record] = [
                {"benchmark": part.benchmark.name, "condition": condition.name, **s.record()}
                for s in graded.samples
            ]
            if again:
                changed[key] = _changed(items.get(key, ()), records)
            items[key] = records
            missing[key] = graded.score.missing
            spent = seconds.get(key, 0.0) + graded.seconds
            again_run = browser.num_run_again(key)
            scores[key] = replace(graded.score, seconds=spent, run_again=again_run)
    results = Results(
        policy=settings.policy,
        results=with_gaps(scores),
        missing={key: number for key, number in missing.items() if number},
        judge=judge.report() if judge else None,
        changed=changed if again else None,
    )
    write_results(out, results, items)
    benchmark_page(settings, results).write(out)
    return Evaluation(out=out, settings=settings, results=results)


@dataclass(frozen=True, slots=True)
class _Graded:
    samples: list[Sample]
    score: Score
    seconds: float


def _grade(
    part: Part,
    condition: Condition,
    stored: Sequence[Trajectory],
    settings: RunSettings,
    judge: Judge | None,
    progress: Progress,
) -> _Graded:
    from evals.results import grade_answers, graded_answers

    benchmark = part.benchmark
    grader = judge if benchmark.judged and judge else benchmark.grader(part.loaded)
    if benchmark.judged and judge:
        progress.say(judge.forecast(graded_answers(part, condition, stored)))
    started = time.perf_counter()
    with progress.bar(f"Grade {part.key(condition)}", len(stored)) as bar:
        samples, score = grade_answers(
            part,
            condition,
            stored,
            grader,
            num_threads=num_graders(benchmark),
            max_error_share=settings.max_error_share,
            on_graded=bar.step,
        )
    return _Graded(samples, score, time.perf_counter() - started)


def is_evaluation(folder: Path) -> bool:
    """Return whether a folder is that of an evaluation."""
    from evals.run_folder import RUN_FILE

    return (folder / RUN_FILE).exists()


def report_evaluation(folder: Path) -> tuple[Evaluation, Page]:
    """Write an evaluation's reports again; return it, and its page.

    Raises:
        BenchmarkError: the folder is not that of an evaluation, or nothing is graded in it.
    """
    from evals.bench_report import benchmark_page
    from evals.run_folder import read_results, read_settings

    settings, results = read_settings(folder), read_results(folder)
    if results is None:
        raise BenchmarkError(
            f"The evaluation in '{folder}' is unfinished: run its command again to continue, or "
            "grade what there is with `eapo rescore`."
        )
    page = benchmark_page(settings, results)
    page.write(folder)
    return Evaluation(out=folder, settings=settings, results=results), page


def recorded_seconds(out: Path) -> dict[str, float]:
    """Return how long answering took, by key, over all attempts."""
    try:
        found: dict[str, float] = json.loads((out / SECONDS).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _changed(
    before: Sequence[Mapping[str, object]], records: Sequence[Mapping[str, object]]
) -> list[str]:
    """Return the answers whose verdict is another than before."""
    scores = {(r.get("id"), r.get("rollout")): r.get("score") for r in before}
    return [
        f"{r['id']}#{r['rollout']}"
        for r in records
        if scores.get((r["id"], r["rollout"]), r["score"]) != r["score"]
    ]


def refuse_unjudged(benchmark: Benchmark, judge: str | None) -> None:
    """Raise BenchmarkError where grading needs a judge and none is named."""
    if benchmark.judged and not judge:
        raise BenchmarkError(
            f"{benchmark.title} is graded by a judge: name one of the recipe's experts with "
            "--judge."
        )


def the_judge(recipe: Recipe, name: str, folder: Path) -> Judge:
    """Return the recipe's expert of that name as a judge, its ledger in the folder."""
    from evals.judge import Judge
    from graphs.agent import make_pool

    pool = make_pool(recipe)
    judge = Judge(pool, name)
    pool.open(expert_file(recipe, folder), f"judge-{name}")
    return judge


def judging_pool(recipe: Recipe, folder: Path) -> ExpertPool:
    """Return the recipe's experts for the judge of its task, their ledger in the folder."""
    from graphs.agent import make_pool

    pool = make_pool(recipe)
    pool.open(expert_file(recipe, folder), "judge")
    return pool


def num_graders(benchmark: Benchmark, workers: int | None = None) -> int:
    """Return how many answers to grade at once: one a core, or as many as a judge may be asked."""
    return workers or (_JUDGED_AT_ONCE if benchmark.judged else os.cpu_count() or 1)


def prepare_sandbox(
    benchmark: Benchmark,
    kind: str,
    *,
    unsafe: bool,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Open the sandbox where the benchmark runs code, and none is open yet."""
    from eapo_agents.grading.code import has_sandbox, use_sandbox

    if not benchmark.runs_code or has_sandbox():
        return
    from eapo_agents.sandbox import Sandbox, find_isolation

    if unsafe:
        progress.warn(
            "eapo: --unsafe-code: code written by a model runs WITHOUT a sandbox, as you, with "
            "your files and your network."
        )
    isolation = find_isolation(kind, unsafe=unsafe)
    use_sandbox(Sandbox(isolation, workers=num_graders(benchmark, workers)))
