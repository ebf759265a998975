"""Scores of answers that were made elsewhere, in the benchmark's own format, without a model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from eapo_agents.progress import SILENT, Progress

_JUDGED_AT_ONCE = 16
"""A judge is waited for, not worked for."""


def score(
    name: str,
    gold: str | None,
    predictions: str,
    *,
    with_items: bool,
    judge: str | None,
    recipe: Any,
    sandbox: str,
    unsafe: bool,
    workers: int | None,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Return the figures that upstream's script would give."""
    from evals.benchmarks import find_benchmark
    from evals.predictions import read_predictions
    from evals.scoring import refuse_ungraded
    from evals.scoring import score as grade_all
    from evals.sources import load

    benchmark = find_benchmark(name)
    if benchmark.name == "humanevalplus" and name.lower() == "evalplus" and _is_mbpp(gold):
        benchmark = find_benchmark("mbppplus")
    loaded = load(benchmark, gold)
    matched = read_predictions(benchmark, loaded.problems, Path(predictions))
    given = dict(matched.by_problem)
    grader = None
    if benchmark.judged:
        grader = the_judge(recipe, judge, Path("runs")) if judge else None
        if grader is None:
            refuse_ungraded(given, benchmark)
    prepare_sandbox(benchmark, sandbox, unsafe=unsafe, workers=workers, progress=progress)
    num_threads = num_graders(benchmark, workers)
    total = sum(map(len, given.values()))
    if matched.ignored:
        progress.say(
            f"{matched.ignored} predictions are for problems that the gold file does not have; "
            "as upstream's script does, they are left out."
        )
    with progress.bar(f"Score {benchmark.title} (answers)", total) as bar:
        scored = grade_all(
            benchmark, loaded, given, grader=grader, num_threads=num_threads, on_graded=bar.step
        )
    result = scored.summary(dict(matched.names) if with_items else None)
    result["missing"] = sum(not item.grades for item in scored.items)
    if grader is not None:
        result["judge"] = {**grader.settings(), "costs": grader.costs()}
    return {**result, "title": benchmark.title}


def _is_mbpp(gold: str | None) -> bool:
    """Whether `evalplus`, which names two benchmarks, means MBPP+ here."""
    from evals.sources import read_text

    return gold is not None and '"Mbpp/' in read_text(Path(gold))[:1000]


def the_judge(recipe: Any, name: str, folder: Path) -> Any:
    """The recipe's expert of that name as a judge, its ledger in the folder."""
    from eapo_agents.runs.folder import expert_file
    from evals.judge import Judge
    from graphs.agent import make_pool

    pool = make_pool(recipe)
    judge = Judge(pool, name)
    pool.open(expert_file(recipe, folder), f"judge-{name}")
    return judge


def num_graders(benchmark: Any, workers: int | None = None) -> int:
    """How many answers to grade at once: one a core, or as many as a judge may be asked."""
    return workers or (_JUDGED_AT_ONCE if benchmark.judged else os.cpu_count() or 1)


def prepare_sandbox(
    benchmark: Any,
    kind: str,
    *,
    unsafe: bool,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Opens the sandbox where the benchmark runs code, and none is open yet."""
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


def list_benchmarks() -> list[dict[str, Any]]:
    """Return the facts of every benchmark."""
    from evals.benchmarks import BENCHMARKS, find_benchmark

    return [_facts(find_benchmark(known)) for known in BENCHMARKS]


def show_benchmark(name: str, gold: str | None) -> dict[str, Any]:
    """Return the facts of one benchmark, with its protocol and its first prompt."""
    from evals.benchmarks import find_benchmark
    from evals.sources import load

    benchmark = find_benchmark(name)
    facts = _facts(benchmark)
    loaded = load(benchmark, gold)
    facts |= {"problems": len(loaded.problems), "origin": loaded.origin, "data": loaded.digest}
    if not benchmark.sealed:
        first = loaded.problems[0]
        facts |= {"id": first.id, "prompt": first.question, "gold": first.answer}
    return facts


def _facts(benchmark: Any) -> dict[str, Any]:
    hub = benchmark.hub
    return {
        "name": benchmark.name,
        "title": benchmark.title,
        "metric": benchmark.metric,
        "samples": benchmark.samples,
        "temperature": benchmark.temperature,
        "top_p": benchmark.top_p,
        "max_new_tokens": benchmark.max_new_tokens,
        "hub": hub.repo if hub else None,
        "file": benchmark.file,
        "licence": benchmark.licence,
        "obtain": benchmark.obtain,
        "version": benchmark.version,
    }
