"""Collects groups of rollouts into a trace store; resumes, and shares the work with other
processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.recipe import Recipe
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, RolloutGroup, Trajectory
from graphs.agent import Agent
from graphs.groups import NO_ASSISTANCE, Assistance, run_groups
from graphs.rollout import AnyGraph, RolloutPlan, group_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is to be collected."""

    run_id: str
    problems: Sequence[Problem]
    num_rollouts: int
    """G: rollouts a problem."""
    concurrency: int
    """Rollouts in flight at once."""
    seed: int
    system_prompt: str
    format_reward: float
    global_step: int = 0
    assistance: Assistance = NO_ASSISTANCE
    inputs: Callable[[Problem], Any] | None = None
    answer_of: Callable[[Any], str | None] | None = None
    """See `run_rollouts`."""

    @classmethod
    def of(
        cls, recipe: Recipe, run_id: str, problems: Sequence[Problem], **more: Any
    ) -> Collection:
        """As the recipe's `collect` section has it."""
        return cls(
            run_id=run_id,
            problems=problems,
            num_rollouts=recipe.collect.num_generations,
            concurrency=recipe.collect.concurrency,
            seed=recipe.seed,
            system_prompt=recipe.task.system_prompt,
            format_reward=recipe.task.format_reward,
            **more,
        )


def trace(
    agent: Agent,
    graph: AnyGraph,
    problems: Sequence[Problem],
    store: TraceStore,
    *,
    run_id: str,
    inputs: Callable[[Problem], Any] | None = None,
    answer_of: Callable[[Any], str | None] | None = None,
) -> int:
    """Collects traces of any LangGraph graph whose model is the agent's policy, under the recipe's
    `collect` section; the same call resumes. Returns how many rollouts it ran.

    Args:
        inputs: problem -> the graph's input; by default the recipe's prompt as `messages`.
        answer_of: final state -> the answer; by default the last message's text.
    """
    recipe = agent.recipe
    store.start_run(
        run_id,
        kind="collect",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    wanted = Collection.of(recipe, run_id, problems, inputs=inputs, answer_of=answer_of)
    return collect(graph, agent.policy(agent.sampling), store, wanted)


def collect(
    graph: AnyGraph,
    policy: PolicyChatModel,
    store: TraceStore,
    wanted: Collection,
    on_group: Callable[[RolloutGroup], None] = lambda group: None,
) -> int:
    """Runs what the store does not have yet, a wave at a time, and returns how many rollouts it
    ran.

    Each trajectory is committed as it ends. Groups that another live process has claimed are
    left to it.

    Raises:
        BudgetError: the experts' budget is spent; what has ended is in the store.
    """
    num_run = 0

    def commit(trajectory: Trajectory) -> None:
        key = group_key(trajectory.problem, wanted.global_step)
        store.append(trajectory, run_id=wanted.run_id, group_key=key)

    for plans in _waves(store, wanted):
        groups = asyncio.run(
            run_groups(
                graph,
                policy,
                plans,
                assistance=wanted.assistance,
                num_rollouts=wanted.num_rollouts,
                system_prompt=wanted.system_prompt,
                seed=wanted.seed,
                global_step=wanted.global_step,
                format_reward=wanted.format_reward,
                on_trajectory=commit,
                inputs=wanted.inputs,
                answer_of=wanted.answer_of,
            )
        )
        for group in groups:
            store.release(wanted.run_id, group_key(group.problem, wanted.global_step))
            num_run += len(group.trajectories_G)
            on_group(group)
    return num_run


def _waves(store: TraceStore, wanted: Collection) -> Iterator[list[RolloutPlan]]:
    """Plans for missing rollouts, about `concurrency` at a time; each group is claimed before it is
    run."""
    wave: list[RolloutPlan] = []
    have = store.have(wanted.run_id)
    for problem in wanted.problems:
        key = group_key(problem, wanted.global_step)
        missing = [r for r in range(wanted.num_rollouts) if r not in have.get(key, set())]
        if not missing or not store.claim(wanted.run_id, key):
            continue
        # another process may have finished it between the look and the claim
        now_held = store.have(wanted.run_id).get(key, set())
        missing = [r for r in missing if r not in now_held]
        if not missing:
            store.release(wanted.run_id, key)
            continue
        before = (
            _stored(store, wanted.run_id, key) if now_held and wanted.assistance.solo_share else ()
        )
        wave.append(RolloutPlan(problem=problem, rollouts=missing, before=before))
        if sum(len(plan.rollouts) for plan in wave) >= wanted.concurrency:
            yield wave
            wave = []
    if wave:
        yield wave


def _stored(store: TraceStore, run_id: str, key: str) -> list[Trajectory]:
    return [s.trajectory for s in store.trajectories(run_id=run_id) if s.group_key == key]
