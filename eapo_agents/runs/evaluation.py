"""Evaluation of a policy, on the recipe's task and on benchmarks: prepared, sampled, graded.

The folder of an evaluation holds run.json, results.json, items.jsonl, traces.db and the reports.
The same call continues where it stopped; of a finished one it changes nothing.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import eapo_agents
from eapo_agents.errors import BenchmarkError
from eapo_agents.files import write_atomically
from eapo_agents.foreign import refuse_foreign_packages
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.evaluation_plan import EvaluationPlan, Wanted, prepare
from eapo_agents.runs.folder import TRACES, in_a_line
from eapo_agents.runs.forecast import evaluation_forecast
from eapo_agents.runs.grading import (
    SECONDS,
    Evaluation,
    grade_run,
    num_graders,
    recorded_seconds,
)
from eapo_agents.runs.loading import load_agent
from eapo_agents.runs.lock import locked
from eapo_agents.types import PolicyVersion

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from evals.conditions import Part
    from evals.results import Score
    from evals.run_folder import RunSettings
    from graphs.agent import Agent


def evaluate(
    recipe: Recipe, out: Path, *, progress: Progress = SILENT, **wanted: Unpack[Wanted]
) -> Evaluation:
    """Evaluate the recipe's policy; the results are in the folder `out`.

    Args:
        wanted: see `Wanted`; by default the recipe's task, as its eval section has it.

    Raises:
        UsageError: something that is wanted does not fit. The model was not loaded yet. Or another
            process works in the folder.
        BudgetError: the experts' budget is spent. The same call continues when it is raised.
        ErrorBudgetError: more rollouts failed than the recipe allows.
    """
    refuse_foreign_packages()
    plan = prepare(recipe, out, wanted, progress)
    progress.say(f"{in_a_line(recipe)}. Settings and results are in {out}.")
    if recipe.policy.api_model is not None:
        progress.say(evaluation_forecast(recipe, plan.parts).told(recipe))
    with locked(out):
        agent = load_agent(recipe, progress)
        for condition in (c for part in plan.parts for c in part.conditions):
            agent.policy(condition.sampling)  # an API model may not be able to sample like that
        settings = _start(out, plan, recipe, agent.engine.policy_version)
        evaluation = _finished(out, settings, plan)
        if evaluation is None:
            _sample(agent, plan, out, wanted.get("concurrency"), progress)
            evaluation = grade_run(out, settings, plan.parts, plan.judge, progress=progress)
        else:
            progress.say(f"The evaluation in {out} is finished: nothing was run.")
    baseline = wanted.get("baseline")
    if baseline is None:
        return evaluation
    from evals.compare import compare_runs

    return replace(evaluation, paired=compare_runs(baseline, str(out)))


def score_policy(
    agent: Agent, part: Part, store: TraceStore, run_id: str, progress: Progress = SILENT
) -> dict[str, Score]:
    """Return the scores of the agent's present weights, by condition. The answers are kept in
    `store`, and what it has is not sampled again.

    Raises:
        ErrorBudgetError: more rollouts failed than the recipe allows.
    """
    from evals.answering import answer
    from evals.results import grade_answers

    recipe, scores = agent.recipe, {}
    for condition in part.conditions:
        name = f"{run_id}/{condition.name}"
        with progress.bar(f"  {condition.name}", part.num_answers(condition)) as bar:
            bar.at(sum(map(len, store.have(name).values())))
            answer(
                agent,
                part,
                condition,
                store,
                name,
                on_ended=bar.step,
            )
        _, scores[condition.name] = grade_answers(
            part,
            condition,
            (stored.trajectory for stored in store.trajectories(run_id=name)),
            part.benchmark.grader(part.loaded),
            num_threads=num_graders(part.benchmark),
            max_error_share=recipe.rollouts.max_error_share,
        )
    return scores


def _start(out: Path, plan: EvaluationPlan, recipe: Recipe, policy: PolicyVersion) -> RunSettings:
    """Write the run's settings, joined with those of other benchmarks in the folder.

    Raises:
        BenchmarkError: the folder holds an evaluation of another policy.
    """
    from evals.run_folder import RUN_FILE, RunSettings, read_settings, write_settings

    if (out / RUN_FILE).exists():
        there = read_settings(out)
        if there.policy.weights != policy.weights:
            raise BenchmarkError(
                f"'{out}' holds an evaluation of another policy (step {there.policy.step}, weights "
                f"{there.policy.weights[:12]}): give another --out."
            )
        settings = replace(there, results={**there.results, **plan.settings})
    else:
        settings = RunSettings(
            package_version=eapo_agents.__version__,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            policy=policy,
            seed=recipe.seed,
            max_error_share=recipe.rollouts.max_error_share,
            recipe=recipe.model_dump(mode="json"),
            results=plan.settings,
        )
    write_settings(out, settings)
    return settings


def _finished(out: Path, settings: RunSettings, plan: EvaluationPlan) -> Evaluation | None:
    """Return the evaluation that the folder has, where nothing of the plan is missing or failed in
    it."""
    from evals.run_folder import read_results

    results = read_results(out)
    if results is None or any(
        key not in results.results or key in results.missing or results.results[key].failed
        for key in plan.settings
    ):
        return None
    return Evaluation(out=out, settings=settings, results=results)


def _sample(
    agent: Agent, plan: EvaluationPlan, out: Path, concurrency: int | None, progress: Progress
) -> None:
    from eapo_agents.store import TraceStore
    from evals.answering import answer

    with TraceStore.open(str(out / TRACES), create=True) as store:
        for part, condition in ((p, c) for p in plan.parts for c in p.conditions):
            key = part.key(condition)
            if condition.asks_experts or agent.pool.policy is not None:
                agent.pool.open(
                    plan.ledger,
                    key,
                    among=list(plan.settings),
                    thoughts=not part.benchmark.sealed,  # they may quote its questions
                )
            started = time.perf_counter()
            with progress.bar(f"Answer {key}", part.num_answers(condition)) as bar:
                bar.at(sum(map(len, store.have(key).values())))
                answer(
                    agent,
                    part,
                    condition,
                    store,
                    key,
                    concurrency=concurrency,
                    on_ended=bar.step,
                )
            _add_seconds(out, key, time.perf_counter() - started)


def _add_seconds(out: Path, key: str, seconds: float) -> None:
    known = recorded_seconds(out)
    known[key] = known.get(key, 0.0) + seconds
    write_atomically(out / SECONDS, json.dumps(known) + "\n")
