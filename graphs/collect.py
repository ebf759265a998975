"""Collects groups of rollouts into a trace store; continues, and shares the work with other
processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.recipe import Recipe
from eapo_agents.rewards import Reward, reward_of, score_text
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, RolloutGroup
from graphs.agent import Agent
from graphs.concurrency import Concurrency, Wanted
from graphs.failures import Retry
from graphs.fill import fill
from graphs.groups import NO_ASSISTANCE, Assistance
from graphs.rollout import AnyGraph, Rollouts, group_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What is to be collected."""

    run_id: str
    problems: Sequence[Problem]
    num_rollouts: int
    """G: rollouts per problem."""
    concurrency: Wanted
    """Rollouts in flight at once, or `auto`."""
    seed: int
    system_prompt: str
    reward: Reward = score_text
    global_step: int = 0
    rollout_timeout_s: float | None = None
    """Time limit of one rollout."""
    retry_failed: Retry = "infrastructure"
    """Which failed rollouts of the store run again."""
    assistance: Assistance = NO_ASSISTANCE
    solo_graph: AnyGraph | None = None
    inputs: Callable[[Problem], Any] | None = None
    answer_of: Callable[[Any], str | None] | None = None
    """See `Rollouts`."""

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        run_id: str,
        problems: Sequence[Problem],
        pool: ExpertPool | None = None,
        **more: Any,
    ) -> Collection:
        """Return what the recipe's `collect` section wants."""
        return cls(
            run_id=run_id,
            problems=problems,
            num_rollouts=recipe.collect.num_generations,
            concurrency=recipe.rollouts.concurrency,
            rollout_timeout_s=recipe.rollouts.rollout_timeout_s,
            retry_failed=recipe.rollouts.retry_failed,
            seed=recipe.seed,
            system_prompt=recipe.task.system_prompt,
            reward=reward_of(recipe, pool),
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
    """Collect traces of any LangGraph graph whose model is the agent's policy, under the recipe's
    `collect` section; the same call continues. Return how many rollouts it ran.

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
    pool = agent.pool if recipe.task.judge is not None else None
    wanted = Collection.of(recipe, run_id, problems, pool, inputs=inputs, answer_of=answer_of)
    return collect(graph, agent.policy(agent.sampling), store, wanted)


def collect(
    graph: AnyGraph,
    policy: RecordedChatModel,
    store: TraceStore,
    wanted: Collection,
    on_group: Callable[[RolloutGroup], None] = lambda group: None,
    rate_limited: Callable[[], int] = lambda: 0,
) -> int:
    """Run what the store does not have yet; return how many rollouts ran.

    Groups that another live process has claimed are left to it. See `fill`.

    Args:
        on_group: called with what ran now of each group that became whole.
        rate_limited: see `Concurrency`.

    Raises:
        BudgetError: the experts' budget is spent; what has ended is in the store.
    """
    rollouts = Rollouts(
        graph=graph,
        solo_graph=wanted.solo_graph,
        policy=policy,
        system_prompt=wanted.system_prompt,
        seed=wanted.seed,
        global_step=wanted.global_step,
        reward=wanted.reward,
        assistance=wanted.assistance,
        inputs=wanted.inputs,
        answer_of=wanted.answer_of,
        timeout_s=wanted.rollout_timeout_s,
    )
    plans = (
        rollouts.plan(
            problem,
            wanted.num_rollouts,
            run_id=wanted.run_id,
            key=group_key(problem, wanted.global_step),
        )
        for problem in wanted.problems
    )
    return fill(
        store,
        plans,
        rollouts.run,
        engine=policy.engine,
        concurrency=Concurrency(wanted.concurrency, policy.engine, rate_limited),
        retry=wanted.retry_failed,
        shared=True,
        on_group=lambda plan, group: on_group(group),
    )
