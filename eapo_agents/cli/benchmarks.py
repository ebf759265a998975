"""`eapo eval --benchmarks`, `eapo rescore`, `eapo compare`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import eapo_agents
from eapo_agents.cli.commands import expert_file, load_agent, write_atomically
from eapo_agents.cli.progress import console, progress_bar
from eapo_agents.cli.scoring import IN_USE, prepare_sandbox, the_judge
from eapo_agents.errors import BenchmarkError, UsageError
from eapo_agents.recipe import Recipe, to_yaml

TRACES = "traces.db"


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


def run(recipe: Recipe, options: Options, *, as_json: bool) -> None:
    """Answers and grades the benchmarks; the same command goes on where it stopped."""
    from eapo_agents.store import TraceStore
    from evals.answering import ASSISTED, SOLO, Protocol, answer
    from evals.benchmarks import find_benchmark
    from evals.compare import RUN_FILE, RUN_FORMAT

    benchmarks = [find_benchmark(name) for name in options.names]
    prepared = []
    for benchmark in benchmarks:
        _refuse(benchmark, options)
        loaded = _load(benchmark, options)
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
    for benchmark in benchmarks:
        prepare_sandbox(
            benchmark, options.sandbox, unsafe=options.unsafe
        )  # before any token is spent
    judge = the_judge(recipe, options.judge, options.out) if options.judge else None
    modes = [SOLO, ASSISTED] if options.assisted else [SOLO]
    console.print(to_yaml(recipe).rstrip(), style="dim", markup=False)
    agent = load_agent(recipe)
    settings: dict[str, Any] = {
        "format": RUN_FORMAT,
        "package_version": eapo_agents.__version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "policy": asdict(agent.engine.policy_version),
        "seed": recipe.seed,
        "max_error_share": recipe.collect.max_error_share,
        "recipe": recipe.model_dump(mode="json"),
        "benchmarks": {
            b.name: _settings(b, loaded, protocol, recipe, options, judge)
            for b, loaded, protocol in prepared
        },
    }
    settings = _start(options.out, settings)
    with TraceStore.open(str(options.out / TRACES), create=True) as store:
        for benchmark, loaded, protocol in prepared:
            for mode in modes:
                key = f"{benchmark.name} {mode}"
                if mode == ASSISTED:
                    agent.pool.open(expert_file(recipe, options.out), f"{key}")
                started = time.perf_counter()
                with progress_bar(f"Answer {key}", len(loaded.problems) * protocol.samples) as bar:
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
                        concurrency=options.concurrency or recipe.eval.concurrency,
                        on_sample=partial(_step, bar),
                    )
                _add_seconds(options.out, key, time.perf_counter() - started)
    write_atomically(options.out / RUN_FILE, json.dumps(settings, indent=1) + "\n")
    _grade(options.out, prepared, modes, judge, as_json=as_json)


def _step(bar: Any, trajectory: Any) -> None:
    bar.step()


def rescore(
    folder: Path,
    recipe: Recipe | None,
    *,
    data: Mapping[str, str],
    judge: str | None,
    sandbox: str,
    unsafe: bool,
    as_json: bool,
) -> None:
    """Grades a run's saved answers again, and says which verdicts changed."""
    from evals.answering import ASSISTED, SOLO
    from evals.benchmarks import find_benchmark
    from evals.compare import RUN_FILE

    try:
        settings = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
        names = list(settings["benchmarks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"'{folder}' is no benchmark run ({type(error).__name__}): give the --out folder of an "
            "`eapo eval --benchmarks ...`."
        ) from error
    prepared = []
    for name in names:
        benchmark, there = find_benchmark(name), settings["benchmarks"][name]
        options = Options(
            names=names, data={**_paths(settings), **data},
            samples=None, temperature=None, top_p=None, max_new_tokens=None, limit=there["limit"],
            concurrency=None, assisted=False, judge=judge, sandbox=sandbox, unsafe=unsafe,
            out=folder,
        )  # fmt: skip
        loaded = _load(benchmark, options)
        if loaded.digest != there["data"]:
            raise BenchmarkError(
                f"The problems of {benchmark.title} are not those of the run "
                f"({loaded.origin}): give "
                f"the same file with --data {name}=FILE."
            )
        prepare_sandbox(benchmark, sandbox, unsafe=unsafe)
        prepared.append((benchmark, loaded, None))
    modes = [SOLO, ASSISTED] if settings["benchmarks"][names[0]]["assisted"] else [SOLO]
    judging = the_judge(recipe, judge, folder) if judge else None
    _grade(folder, prepared, modes, judging, as_json=as_json, again=True)


def compare(folder_a: str, folder_b: str, *, as_json: bool) -> None:
    """Paired differences, b - a."""
    from evals.compare import compare_runs, comparison_markdown

    comparison = compare_runs(folder_a, folder_b)
    print(json.dumps(comparison) if as_json else comparison_markdown(comparison))


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


def _grade(
    out: Path,
    prepared: Sequence[tuple[Any, Any, Any]],
    modes: Sequence[str],
    judge: Any,
    *,
    as_json: bool,
    again: bool = False,
) -> None:
    from eapo_agents.store import TraceStore
    from evals.answering import ASSISTED, SOLO
    from evals.bench_report import bench_html, bench_markdown
    from evals.compare import RESULTS_FILE, RUN_FILE
    from evals.metrics import paired_bootstrap
    from evals.results import grade_samples, summarise

    settings = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    seconds = _seconds(out)
    results: dict[str, dict[str, Any]] = {}
    changed: dict[str, list[str]] = {}
    with ExitStack() as stack:
        store = stack.enter_context(TraceStore.open(str(out / TRACES)))
        for benchmark, loaded, _ in prepared:
            problems = {problem.id: problem for problem in loaded.problems}
            threads = prepare_sandbox(benchmark, IN_USE, unsafe=False)
            grader = judge if benchmark.judged else benchmark.grader(loaded)
            for mode in modes:
                key = f"{benchmark.name} {mode}"
                started = time.perf_counter()
                stored = [s.trajectory for s in store.trajectories(run_id=key)]
                with progress_bar(f"Grade {key}", len(stored)) as bar:
                    samples = grade_samples(
                        benchmark,
                        problems,
                        stored,
                        grader,
                        num_threads=16 if benchmark.judged else threads,
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
            if ASSISTED in modes:
                solo, assisted = (results[f"{benchmark.name} {m}"] for m in (SOLO, ASSISTED))
                gap = paired_bootstrap(solo["per_problem"], assisted["per_problem"])
                assisted["gap"] = asdict(gap)
    report: dict[str, Any] = {"policy": settings["policy"], "results": results}
    if judge is not None:
        report["judge"] = {**judge.settings(), "costs": judge.costs()}
    if again:
        report["changed"] = changed
    write_atomically(out / RESULTS_FILE, json.dumps(report, indent=1) + "\n")
    write_atomically(out / "report.md", bench_markdown(settings, results))
    write_atomically(out / "report.html", bench_html(settings, results))
    if as_json:
        short = {
            key: {k: v for k, v in r.items() if k != "per_problem"} for key, r in results.items()
        }
        print(json.dumps({**report, "results": short, "out": str(out)}))
        return
    _print(results, changed, judge, out)


def _print(results: Any, changed: Any, judge: Any, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from evals.bench_report import HEADER, facts, table_rows

    screen = Console()
    if not screen.is_terminal:
        screen = Console(width=120)
    table = Table()
    for name in HEADER:
        table.add_column(name, no_wrap=True)
    for row in table_rows(results):
        table.add_row(*row)
    screen.print(table)
    for key, result in results.items():
        beside = [f"{name}: {value}" for name, value in facts(result) if "published" in name]
        for line in beside:
            screen.print(f"{key}: {line}", markup=False)
        if "gap" in result:
            gap = result["gap"]
            low, high = (100 * bound for bound in gap["ci95"])
            difference = f"{100 * gap['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
            screen.print(f"{key}: {difference} to solo", markup=False)
    for key, ids in changed.items():
        names = f": {', '.join(ids[:20])}" if ids else ""
        screen.print(f"{key}: {len(ids)} verdicts changed{names}", markup=False)
    if judge is not None:
        for line in judge.costs():
            cost = line.get("cost_usd")
            money = "unpriced" if cost is None else f"${cost:.4f}"
            screen.print(f"judge {judge.name}: {line['calls']} calls, {money}", markup=False)
    screen.print(f"Report: {out / 'report.html'}, report.md, results.json", markup=False)


def _refuse(benchmark: Any, options: Options) -> None:
    if benchmark.judged and not options.judge:
        raise BenchmarkError(
            f"{benchmark.title} is graded by a judge: name one of the recipe's experts with "
            f"--judge."
        )
    if benchmark.sealed and options.assisted:
        raise BenchmarkError(
            f"{benchmark.title} may not be written out in plain, and experts' calls are: leave "
            "--assisted out for it."
        )


def _load(benchmark: Any, options: Options) -> Any:
    """The benchmark's problems, the first `limit` of them in an order that their ids decide."""
    from dataclasses import replace

    from eapo_agents.schedules import counter_key
    from evals.sources import load

    loaded = load(benchmark, options.data.get(benchmark.name))
    if options.limit is None or options.limit >= len(loaded.problems):
        return loaded
    numbers = sorted(
        range(len(loaded.problems)), key=lambda i: counter_key("limit", 0, loaded.problems[i].id)
    )[: options.limit]
    numbers.sort()
    return replace(
        loaded,
        problems=tuple(loaded.problems[i] for i in numbers),
        records=tuple(loaded.records[i] for i in numbers),
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


def _start(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Writes the run's settings, or finds that it goes on with them.

    Raises:
        BenchmarkError: the folder holds a run with other settings; says which.
    """
    from evals.compare import RUN_FILE, differing_settings

    file = out / RUN_FILE
    if not file.exists():
        write_atomically(file, json.dumps(settings, indent=1) + "\n")
        return settings
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
            f"--out, "
            "or the same settings to go on with it."
        )
    there["benchmarks"] = {**known, **settings["benchmarks"]}
    return dict(there)


def _paths(settings: Mapping[str, Any]) -> dict[str, str]:
    return {name: s["file"] for name, s in settings["benchmarks"].items() if s.get("file")}


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


def _seconds(out: Path) -> dict[str, float]:
    try:
        found: dict[str, float] = json.loads((out / "seconds.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def _add_seconds(out: Path, key: str, seconds: float) -> None:
    known = _seconds(out)
    known[key] = known.get(key, 0.0) + seconds
    write_atomically(out / "seconds.json", json.dumps(known) + "\n")
