"""Benchmark runs: answers sampled, kept and graded."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import eapo_agents
from eapo_agents.errors import BenchmarkError, UsageError
from eapo_agents.files import write_atomically
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import TRACES, expert_file, in_a_line
from eapo_agents.runs.loading import load_agent
from eapo_agents.runs.rescoring import Graded, grade_run, load_problems, recorded_seconds
from eapo_agents.runs.scoring import prepare_sandbox, the_judge

CONCURRENCY = 32
"""Prompts of benchmarks are long: more at once is a matter of memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `eapo eval --benchmarks` was asked for; None is the benchmark's own."""

    names: Sequence[str]
    data: Mapping[str, str]
    samples: int | None
    temperature: float | None
    top_p: float | None
    max_new_tokens: int | None
    limit: int | None
    concurrency: int | None
    assisted: bool
    judge: str | None
    sandbox: str
    unsafe: bool
    out: Path


def run(recipe: Recipe, options: Options, *, progress: Progress = SILENT) -> Graded:
    """Answer and grade the benchmarks; the same call continues where it stopped."""
    from eapo_agents.store import TraceStore
    from evals.answering import ASSISTED, SOLO, Protocol, answer
    from evals.benchmarks import find_benchmark
    from evals.compare import RUN_FORMAT

    benchmarks = [find_benchmark(name) for name in options.names]
    prepared = []
    for benchmark in benchmarks:
        _refuse(benchmark, options)
        loaded = load_problems(benchmark, options.data.get(benchmark.name), options.limit)
        protocol = Protocol.of(
            benchmark,
            samples=options.samples,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
        )
        if protocol.samples > 1 and protocol.temperature == 0:
            raise UsageError(
                f"{protocol.samples} greedy samples of {benchmark.title} would all be the same: "
                "give --temperature above 0, or --samples 1."
            )
        prepared.append((benchmark, loaded, protocol))
    for benchmark in benchmarks:  # before any token is spent
        prepare_sandbox(benchmark, options.sandbox, unsafe=options.unsafe, progress=progress)
    judge = the_judge(recipe, options.judge, options.out) if options.judge else None
    modes = [SOLO, ASSISTED] if options.assisted else [SOLO]
    progress.say(f"{in_a_line(recipe)}. Settings and results are in {options.out}.")
    agent = load_agent(recipe, progress)
    settings: dict[str, Any] = {
        "format": RUN_FORMAT,
        "package_version": eapo_agents.__version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "policy": asdict(agent.engine.policy_version),
        "seed": recipe.seed,
        "max_error_share": recipe.rollouts.max_error_share,
        "recipe": recipe.model_dump(mode="json"),
        "origins": {b.name: loaded.origin for b, loaded, _ in prepared},
        "benchmarks": {
            b.name: _settings(b, loaded, protocol, recipe, options, judge)
            for b, loaded, protocol in prepared
        },
    }
    _start(options.out, settings)
    with TraceStore.open(str(options.out / TRACES), create=True) as store:
        for benchmark, loaded, protocol in prepared:
            for mode in modes:
                key = f"{benchmark.name} {mode}"
                if mode == ASSISTED:
                    agent.pool.open(expert_file(recipe, options.out), f"{key}")
                started = time.perf_counter()
                with progress.bar(f"Answer {key}", len(loaded.problems) * protocol.samples) as bar:
                    done = sum(map(len, store.have(key).values()))
                    bar.at(done)
                    answer(
                        agent,
                        benchmark,
                        loaded.problems,
                        protocol,
                        store,
                        key,
                        mode=mode,
                        concurrency=options.concurrency or CONCURRENCY,
                        on_sample=partial(_step, bar),
                    )
                _add_seconds(options.out, key, time.perf_counter() - started)
    pairs = [(benchmark, loaded) for benchmark, loaded, _ in prepared]
    return grade_run(options.out, pairs, modes, judge, progress=progress)


def _step(bar: Any, trajectory: Any) -> None:
    bar.step()


def data_option(given: Sequence[str]) -> dict[str, str]:
    """`--data gsm8k=test.jsonl` as name and file."""
    from evals.benchmarks import find_benchmark

    found = {}
    for item in given:
        name, separator, file = item.partition("=")
        if not separator or not file:
            raise UsageError(f"--data takes BENCHMARK=FILE, got '{item}'.")
        found[find_benchmark(name).name] = file
    return found


def _refuse(benchmark: Any, options: Options) -> None:
    if benchmark.judged and not options.judge:
        raise BenchmarkError(
            f"{benchmark.title} is graded by a judge: name one of the recipe's experts "
            "with --judge."
        )
    if benchmark.sealed and options.assisted:
        raise BenchmarkError(
            f"{benchmark.title} may not be written out in plain, and experts' calls are: leave "
            "--assisted out for it."
        )


def _settings(
    benchmark: Any, loaded: Any, protocol: Any, recipe: Recipe, options: Options, judge: Any
) -> dict[str, Any]:
    """What a figure depends on beside the policy. Runs that differ in it are not compared."""
    return {
        "version": benchmark.version,
        "data": loaded.digest,
        "limit": options.limit,
        "problems": len(loaded.problems),
        **asdict(protocol),
        "seed": recipe.seed,
        "assisted": options.assisted,
        "consult": recipe.consult.model_dump(mode="json") if options.assisted else None,
        **(judge.settings() if judge is not None and benchmark.judged else {}),
    }


def _start(out: Path, settings: dict[str, Any]) -> None:
    """Writes the run's settings, joined with those of other benchmarks in the folder.

    Raises:
        BenchmarkError: the folder holds a run with other settings; says which.
    """
    from evals.compare import RUN_FILE, differing_settings

    file = out / RUN_FILE
    if not file.exists():
        write_atomically(file, json.dumps(settings, indent=1) + "\n")
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
        known = there["benchmarks"]
        weights = there["policy"]["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"'{file}' is damaged: give another --out.") from error
    differing = [] if weights == settings["policy"]["weights"] else ["the policy's weights"]
    for name, now in settings["benchmarks"].items():
        if name in known:
            differing += [f"{name}: {d}" for d in differing_settings(known[name], now)]
    if differing:
        raise BenchmarkError(
            f"'{out}' holds a run with other settings ({'; '.join(differing)}): give another "
            "--out, or the same settings to go on with it."
        )
    for part in ("benchmarks", "origins"):
        there[part] = {**there.get(part, {}), **settings[part]}
    write_atomically(file, json.dumps(there, indent=1) + "\n")


def _add_seconds(out: Path, key: str, seconds: float) -> None:
    known = recorded_seconds(out)
    known[key] = known.get(key, 0.0) + seconds
    write_atomically(out / "seconds.json", json.dumps(known) + "\n")
