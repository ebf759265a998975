"""Answers a benchmark with a policy, under each of its conditions.

Every answer is kept as a trajectory the moment it ends, so that the same call continues where it
stopped. Grading comes afterwards, from what was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.store import TraceStore
from evals.conditions import ASSISTED, Condition, Part
from evals.sealing import seal
from graphs.agent import Agent
from graphs.concurrency import Concurrency, Wanted
from graphs.fill import fill
from graphs.rollout import AnyGraph, Rollouts

BENCHMARK_CONCURRENCY = 32
"""In this process, where nothing else is wanted. The prompts of benchmarks are long, and more at
once is a matter of memory."""


def answer(
    agent: Agent,
    part: Part,
    condition: Condition,
    store: TraceStore,
    run_id: str,
    *,
    concurrency: int | None = None,
    on_ended: Callable[[], None] = lambda: None,
) -> int:
    """Sample what the store does not have yet under `run_id`; return how many answers.

    Args:
        concurrency: rollouts in flight at once; by default the recipe's.
        on_ended: called when an answer is kept.

    Raises:
        BudgetError: the experts' budget is spent; answers that needed no more of it are kept.
    """
    benchmark, recipe = part.benchmark, agent.recipe
    store.start_run(
        run_id,
        kind="eval",
        recipe={"seed": recipe.seed, "benchmark": benchmark.name, **asdict(condition)},
        sampling=condition.sampling,
        policy=agent.engine.policy_version,
    )
    policy = agent.policy(condition.sampling)
    rollouts = Rollouts(
        graph=_graph(agent, condition, policy),
        inputs=agent.inputs,
        answer_of=agent.answer_of,
        policy=policy,
        system_prompt=benchmark.system_prompt,
        examples=benchmark.examples,
        seed=recipe.seed,
        reward=None,
        timeout_s=recipe.rollouts.rollout_timeout_s,
    )
    wanted = concurrency or _wanted(agent, part)
    return fill(
        store,
        [
            rollouts.plan(problem, condition.samples, run_id=run_id, key=problem.id)
            for problem in part.loaded.problems
        ],
        rollouts.run,
        engine=agent.engine,
        concurrency=Concurrency(wanted, agent.engine, agent.pool.rate_limited),
        retry=recipe.rollouts.retry_failed,
        stored_as=seal if benchmark.sealed else lambda trajectory: trajectory,
        on_trajectory=lambda plan, trajectory: on_ended(),
    )


def _graph(agent: Agent, condition: Condition, policy: RecordedChatModel) -> AnyGraph:
    if condition.name == ASSISTED:
        return agent.graph(policy, acceptance=AcceptanceSchedule(kind="constant"))
    return agent.evaluated_graph(policy)


def _wanted(agent: Agent, part: Part) -> Wanted:
    wanted = agent.recipe.rollouts.concurrency
    if wanted == "auto" and not part.benchmark.is_task and not agent.samples_from_servers:
        return BENCHMARK_CONCURRENCY
    return wanted
