"""Grading: at the end of every benchmark run, and again from what was kept."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eapo_agents.errors import BenchmarkError
from eapo_agents.files import write_atomically
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import TRACES
from eapo_agents.runs.scoring import num_graders, prepare_sandbox, the_judge

if TYPE_CHECKING:
    from evals.results import BenchmarkResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A graded benchmark run."""

    out: Path
    report: dict[str, Any]
    """What results.json holds."""
    judge: Any
    """The judge that graded, if any."""


def rescore(
    folder: Path,
    recipe: Recipe | None,
    *,
    data: Mapping[str, str],
    judge: str | None,
    sandbox: str,
    unsafe: bool,
    progress: Progress = SILENT,
) -> Graded:
    """Grade a run's saved answers again, and say which verdicts changed."""
    from evals.answering import ASSISTED, SOLO
    from evals.benchmarks import find_benchmark
    from evals.compare import RUN_FILE

    try:
        settings = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        there = settings["benchmarks"]
        origins = {name: o for name, o in settings["origins"].items() if Path(o).exists()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchmarkError(
            f"'{folder}' is no benchmark run ({type(error).__name__}): give the --out folder of an "
            "`eapo eval --benchmarks ...`."
        ) from error
    prepared = []
    for name, known in there.items():
        benchmark = find_benchmark(name)
        loaded = load_problems(benchmark, {**origins, **data}.get(name), known["limit"])
        if loaded.digest != known["data"]:
            raise BenchmarkError(
                f"The problems of {benchmark.title} are not those of the run ({loaded.origin}): "
                f"give the same file with --data {name}=FILE."
            )
        if benchmark.judged and not judge:
            raise BenchmarkError(f"{benchmark.title} is graded by a judge: name it with --judge.")
        prepare_sandbox(benchmark, sandbox, unsafe=unsafe, progress=progress)
        prepared.append((benchmark, loaded))
    assisted = any(known["assisted"] for known in there.values())
    judging = the_judge(recipe, judge, folder) if judge else None
    modes = [SOLO, ASSISTED] if assisted else [SOLO]
    return grade_run(folder, prepared, modes, judging, again=True, progress=progress)


def grade_run(
    out: Path,
    prepared: Sequence[tuple[Any, Any]],
    modes: Sequence[str],
    judge: Any,
    *,
    again: bool = False,
    progress: Progress = SILENT,
) -> Graded:
    """Grade what is stored, and write items, results and reports. Results of other benchmarks in
    the folder stay."""
    from eapo_agents.store import TraceStore
    from evals.answering import ASSISTED
    from evals.bench_report import benchmark_page
    from evals.compare import RESULTS_FILE, RUN_FILE
    from evals.results import add_gaps, grade_samples, summarise

    settings = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    seconds = recorded_seconds(out)
    results: dict[str, BenchmarkResult] = {}
    changed: dict[str, list[str]] = {}
    with TraceStore.open(str(out / TRACES)) as store:
        for benchmark, loaded in prepared:
            problems = {problem.id: problem for problem in loaded.problems}
            grader = judge if benchmark.judged else benchmark.grader(loaded)
            for mode in modes:
                key = f"{benchmark.name} {mode}"
                started = time.perf_counter()
                stored = [s.trajectory for s in store.trajectories(run_id=key)]
                if not stored and mode == ASSISTED:
                    continue  # another benchmark of the folder was assisted
                with progress.bar(f"Grade {key}", len(stored)) as bar:
                    samples = grade_samples(
                        benchmark,
                        problems,
                        stored,
                        grader,
                        num_threads=num_graders(benchmark),
                        max_error_share=settings["max_error_share"],
                        on_graded=bar.step,
                    )
                file = out / f"{benchmark.name}-{mode}.items.jsonl"
                records = [sample.record() for sample in samples]
                if again:
                    changed[key] = _changed(file, records)
                write_atomically(file, "".join(json.dumps(r) + "\n" for r in records))
                result = summarise(benchmark, problems, samples)
                result["seconds"] = seconds.get(key, 0.0) + time.perf_counter() - started
                results[key] = result
    results = {**_results(out), **results}
    add_gaps(results)
    report: dict[str, Any] = {"policy": settings["policy"], "results": results}
    if judge is not None:
        report["judge"] = {**judge.settings(), "costs": judge.costs()}
    if again:
        report["changed"] = changed
    write_atomically(out / RESULTS_FILE, json.dumps(report, indent=1) + "\n")
    benchmark_page(settings, results).write(out)
    return Graded(out=out, report=report, judge=judge)


def load_problems(benchmark: Any, file: str | None, limit: int | None) -> Any:
    """The benchmark's problems, the first `limit` of them in an order that their ids decide."""
    from dataclasses import replace

    from eapo_agents.schedules import counter_key
    from evals.sources import load

    loaded = load(benchmark, file)
    if limit is None or limit >= len(loaded.problems):
        return loaded
    numbers = sorted(
        range(len(loaded.problems)), key=lambda i: counter_key("limit", 0, loaded.problems[i].id)
    )[:limit]
    numbers.sort()
    return replace(
        loaded,
        problems=tuple(loaded.problems[i] for i in numbers),
        records=tuple(loaded.records[i] for i in numbers),
    )


def recorded_seconds(out: Path) -> dict[str, float]:
    """How long answering took, by benchmark and mode, over all attempts."""
    try:
        found: dict[str, float] = json.loads((out / "seconds.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _changed(file: Path, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Ids of the samples whose verdict is another than before."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        before = {(r["id"], r["rollout"]): r["score"] for r in map(json.loads, lines)}
    except (OSError, ValueError, KeyError):
        return []
    return [
        f"{r['id']}#{r['rollout']}"
        for r in records
        if before.get((r["id"], r["rollout"]), r["score"]) != r["score"]
    ]


def _results(out: Path) -> dict[str, BenchmarkResult]:
    """Results that the folder has already."""
    from evals.compare import RESULTS_FILE

    try:
        found: dict[str, BenchmarkResult] = json.loads((out / RESULTS_FILE).read_text())["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found
