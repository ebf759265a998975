"""What an evaluation is to do, checked before the model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from eapo_agents.errors import BenchmarkError, UsageError
from eapo_agents.progress import Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file
from eapo_agents.runs.grading import judging_pool, prepare_sandbox, refuse_unjudged, the_judge

if TYPE_CHECKING:
    from eapo_agents.experts.pool import ExpertPool
    from evals.benchmark import Benchmark
    from evals.conditions import Condition, Part
    from evals.judge import Judge
    from evals.run_folder import ResultSettings


class Wanted(TypedDict, total=False):
    """What is to be evaluated. What is left out or None is the benchmark's or the recipe's own."""

    benchmarks: Sequence[str]
    """Names of benchmarks and tasks; by default the recipe's task."""
    data: Mapping[str, str]
    """Benchmark -> file with its problems."""
    samples: int | None
    """Answers of each problem."""
    temperature: float | None
    top_p: float | None
    max_new_tokens: int | None
    limit: int | None
    """Problems of each benchmark; always the same."""
    only: Sequence[str] | None
    """Ids of the problems, of one benchmark."""
    concurrency: int | None
    """Rollouts in flight at once."""
    assisted: bool
    """Also with every expert's help."""
    baseline: str | None
    """Folder of an earlier evaluation, to compare with."""
    judge: str | None
    """Expert of the recipe that grades, where a benchmark needs one."""
    sandbox: str
    """For a model's code: auto, bubblewrap, docker or podman."""
    unsafe_code: bool
    """Run a model's code without a sandbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """An evaluation with which nothing is wrong."""

    parts: Sequence[Part]
    settings: Mapping[str, ResultSettings]
    """By key, such as `gsm8k solo`."""
    judge: Judge | None
    ledger: Path
    """File of the experts' ledger."""


def prepare(recipe: Recipe, out: Path, wanted: Wanted, progress: Progress) -> EvaluationPlan:
    """Load the problems and check everything that needs no model.

    Raises:
        UsageError: something that is wanted does not fit.
    """
    names = dict.fromkeys(wanted.get("benchmarks") or [recipe.task.name])
    _refuse_two_choices(list(names), wanted)
    parts = [_part(recipe, name, wanted, out) for name in names]
    if wanted.get("limit") is None and wanted.get("only") is None:
        _tell_few_problems(parts, recipe.eval.problems, progress)
    _refuse_unknown_data(parts, wanted.get("data", {}))
    if any(condition.asks_experts for part in parts for condition in part.conditions):
        _refuse_people(recipe)
    name = wanted.get("judge")
    judge = the_judge(recipe, name, out) if name else None
    settings = {
        part.key(condition): _settings(part, condition, recipe, wanted, judge)
        for part in parts
        for condition in part.conditions
    }
    _refuse_other_settings(settings, out, wanted.get("baseline"))
    for part in parts:
        prepare_sandbox(
            part.benchmark,
            wanted.get("sandbox", "auto"),
            unsafe=wanted.get("unsafe_code", False),
            progress=progress,
        )
    return EvaluationPlan(
        parts=parts, settings=settings, judge=judge, ledger=expert_file(recipe, out)
    )


def _refuse_two_choices(names: Sequence[str], wanted: Wanted) -> None:
    if wanted.get("only") is None:
        return
    if not wanted.get("only"):
        raise UsageError("--only names no problem: give ids such as --only aime25-3,aime25-7.")
    if wanted.get("limit") is not None:
        raise UsageError("--only and --limit both choose problems: give one of them.")
    if len(names) > 1:
        raise UsageError(
            f"--only names problems of one benchmark, and {len(names)} are asked for: evaluate "
            "them one by one."
        )


def task_part(
    recipe: Recipe,
    *,
    assisted: bool = False,
    examples: Sequence[tuple[str, str]] = (),
    pool: ExpertPool | None = None,
) -> Part:
    """Return the recipe's task, with its problems and conditions.

    Args:
        examples: questions and answers that are shown before each problem.
        pool: what a judge is asked through, where the task's reward has one.
    """
    from evals.conditions import Part, conditions_of
    from evals.task_benchmark import task_benchmark

    benchmark, loaded = task_benchmark(
        recipe, examples=examples, pool=(lambda: pool) if pool is not None else None
    )
    conditions = conditions_of(benchmark, recipe.graph, assisted=assisted)
    return Part(benchmark=benchmark, loaded=loaded, conditions=conditions)


def _part(recipe: Recipe, name: str, wanted: Wanted, out: Path) -> Part:
    """Return a benchmark, or a task as one, with its problems and conditions."""
    from evals.benchmarks import find_benchmark, is_benchmark
    from evals.conditions import Part, conditions_of
    from evals.sources import load_limited
    from evals.task_benchmark import is_task, task_benchmark

    limit, only, loaded = wanted.get("limit"), wanted.get("only"), None
    if not wanted.get("benchmarks") or (is_task(name, recipe) and not is_benchmark(name)):
        benchmark, loaded = task_benchmark(
            recipe, name, limit=limit, only=only, pool=partial(judging_pool, recipe, out)
        )
    else:
        benchmark = find_benchmark(name)
    benchmark = _changed(benchmark, wanted)
    assisted = wanted.get("assisted", False)
    conditions = conditions_of(benchmark, recipe.graph, assisted=assisted)
    refuse_unjudged(benchmark, wanted.get("judge"))
    for condition in conditions:
        _refuse(benchmark, condition)
    if loaded is None:
        file = wanted.get("data", {}).get(benchmark.name)
        loaded = load_limited(benchmark, file, limit, only)
    return Part(benchmark=benchmark, loaded=loaded, conditions=conditions)


def _tell_few_problems(parts: Sequence[Part], most: int, progress: Progress) -> None:
    for part in parts:
        found = len(part.loaded.problems)
        if part.benchmark.is_task and found < most:
            progress.say(
                f"{part.benchmark.title} has {found} problems to evaluate: all are used, where "
                f"eval.problems allows {most}."
            )


def _changed(benchmark: Benchmark, wanted: Wanted) -> Benchmark:
    """Return the benchmark with the protocol that is wanted."""
    temperature, top_p = wanted.get("temperature"), wanted.get("top_p")
    longest = wanted.get("max_new_tokens")
    return replace(
        benchmark,
        samples=wanted.get("samples") or benchmark.samples,
        temperature=benchmark.temperature if temperature is None else temperature,
        top_p=benchmark.top_p if top_p is None else top_p,
        max_new_tokens=longest or benchmark.max_new_tokens,
        max_assisted_tokens=longest or benchmark.max_assisted_tokens,
    )


def _refuse_unknown_data(parts: Sequence[Part], data: Mapping[str, str]) -> None:
    names = [part.benchmark.name for part in parts if not part.benchmark.is_task]
    for name in data:
        if name not in names:
            raise UsageError(
                f"--data names '{name}', which is not among the benchmarks to evaluate "
                f"({', '.join(names) or 'none'}): add it to --benchmarks, or leave --data out."
            )


def _refuse(benchmark: Benchmark, condition: Condition) -> None:
    """Raise UsageError where a benchmark cannot be answered as it is wanted."""
    from evals.conditions import ASSISTED, UNASSISTED

    if benchmark.sealed and condition.asks_experts:
        raise BenchmarkError(
            f"{benchmark.title} may not be written out in plain, and experts' calls are: leave "
            "--assisted and graphs with experts out for it."
        )
    if condition.samples > 1 and condition.sampling.temperature == 0:
        raise UsageError(
            f"{condition.samples} greedy samples of {benchmark.title} would all be the same: "
            "give --temperature above 0, or --samples 1."
        )
    if condition.name == ASSISTED and condition.graph in UNASSISTED:
        raise UsageError(
            f"The graph '{condition.graph}' is evaluated as it is: leave --assisted out."
        )


def _refuse_people(recipe: Recipe) -> None:
    from eapo_agents.runs.loading import refuse_people
    from graphs.agent import make_pool

    refuse_people(make_pool(recipe), "eval")


def _settings(
    part: Part, condition: Condition, recipe: Recipe, wanted: Wanted, judge: Judge | None
) -> ResultSettings:
    from evals.run_folder import ResultSettings

    benchmark, loaded, sampling = part.benchmark, part.loaded, condition.sampling
    only = wanted.get("only")
    return ResultSettings(
        kind="task" if benchmark.is_task else "benchmark",
        benchmark=benchmark.name,
        condition=condition.name,
        version=benchmark.version,
        origin=loaded.origin,
        data=loaded.digest,
        limit=wanted.get("limit"),
        only=None if only is None else tuple(sorted(set(only))),
        problems=len(loaded.problems),
        seed=recipe.seed,
        # a graph's own input need not have them
        system_prompt="" if recipe.inputs else benchmark.system_prompt,
        examples=() if recipe.inputs else benchmark.examples,
        graph=condition.graph,
        graph_settings=_graph_settings(recipe),
        samples=condition.samples,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        consult=recipe.consult.model_dump(mode="json") if condition.asks_experts else None,
        judge=judge.settings() if judge is not None and benchmark.judged else None,
    )


def _graph_settings(recipe: Recipe) -> dict[str, object] | None:
    found = {
        "graph_options": recipe.graph_options,
        "solo_graph": recipe.solo_graph,
        "inputs": recipe.inputs,
        "answer_of": recipe.answer_of,
    }
    return {name: value for name, value in found.items() if value} or None


def _refuse_other_settings(
    settings: Mapping[str, ResultSettings], out: Path, baseline: str | None
) -> None:
    from evals.compare import comparable
    from evals.run_folder import RUN_FILE, read_settings

    if baseline is not None:
        known = read_settings(Path(baseline)).results
        comparable(known, settings, folders=(baseline, str(out)))
    if not (out / RUN_FILE).exists():
        return
    there = read_settings(out).results
    differing = [
        f"{key}: {difference}"
        for key, now in settings.items()
        if key in there
        for difference in there[key].differences(now)
    ]
    if differing:
        raise BenchmarkError(
            f"'{out}' holds an evaluation with other settings ({'; '.join(differing)}): give "
            "another --out, or the same settings to continue it."
        )
