"""Collections: problems x G rollouts into a trace store, by one process or several."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file, in_a_line, store_folder
from eapo_agents.runs.forecast import collection_forecast
from eapo_agents.runs.loading import load_agent, problems_of, refuse_people
from eapo_agents.types import ConsultationStatus, Problem, RolloutGroup, Trajectory, total_known

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from graphs.agent import Agent


@dataclass(slots=True)
class Tally:
    """What rollouts cost and gave."""

    rollouts: int = 0
    failed: int = 0
    unscored: int = 0
    """Failed ones too."""
    correct: int = 0
    reward: float = 0.0
    calls: int = 0
    withheld: int = 0
    sampled_tokens: int | None = 0
    """None where a service did not count them."""

    def add(self, trajectory: Trajectory) -> None:
        """Count one trajectory."""
        self.rollouts += 1
        self.failed += trajectory.error is not None
        self.unscored += trajectory.reward is None
        self.correct += bool(trajectory.correct)
        self.reward += trajectory.reward or 0.0
        sampled = (turn.num_sampled for turn in trajectory.turns)
        self.sampled_tokens = total_known([self.sampled_tokens, *sampled])
        for turn in trajectory.turns:
            for consultation in turn.consultations:
                self.withheld += consultation.status is ConsultationStatus.WITHHELD
                self.calls += consultation.status in (
                    ConsultationStatus.ACCEPTED,
                    ConsultationStatus.FAILED,
                    ConsultationStatus.TIMEOUT,
                )

    def summary(self) -> dict[str, float | None]:
        """Return the figures for people and programs."""
        scored = max(1, self.rollouts - self.unscored)
        return {
            "rollouts": self.rollouts,
            "failed": self.failed,
            "unscored": self.unscored,
            "accuracy": self.correct / scored,
            "reward": self.reward / scored,
            "expert_calls": self.calls,
            "expert_calls_withheld": self.withheld,
            "sampled_tokens": self.sampled_tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What a collection holds, and what this call added to it."""

    run_id: str
    store: str
    run_now: int
    """Rollouts that this call ran."""
    tally: Tally
    """Of the whole collection, other processes' parts too."""
    seconds: float
    tasks: int | None = None
    """Tasks of a Ray cluster that ran it; None for this process alone."""
    nodes: int | None = None

    @property
    def summary(self) -> dict[str, object]:
        """Return everything for people and programs."""
        by_ray = {} if self.tasks is None else {"tasks": self.tasks, "nodes": self.nodes}
        return {
            "run_id": self.run_id,
            "store": self.store,
            "run_now": self.run_now,
            **by_ray,
            **self.tally.summary(),
            "seconds": self.seconds,
        }


def collect(
    recipe: Recipe,
    store_at: str,
    *,
    run_id: str | None = None,
    step: int = 1,
    shard: str | None = None,
    progress: Progress = SILENT,
) -> Collected:
    """Run what the store does not have yet; the same call continues.

    Args:
        step: training step whose schedules apply.
        shard: `i/n`: only the i-th of n equal parts of the problems.

    Raises:
        BudgetError: the experts' budget is spent; what has ended is in the store.
    """
    started = time.perf_counter()
    shard_of([], shard)
    run_id = run_id or f"collect-{recipe.name}"
    progress.say(f"{in_a_line(recipe)}. Collects into {store_at}, run {run_id}.")
    from eapo_agents.store import TraceStore

    problems = shard_of(problems_of(recipe, "train", recipe.collect.problems, progress), shard)
    if recipe.policy.api_model is not None:
        progress.say(collection_forecast(recipe, problems, step).told(recipe))
    agent = load_agent(recipe, progress)
    refuse_people(agent.pool, "collect")
    experts = expert_file(recipe, store_folder(store_at))
    with TraceStore.open(store_at, create=True) as store:
        num_run = collect_into(agent, store, run_id, step, problems, experts, progress)
        return Collected(
            run_id=run_id,
            store=store.name,
            run_now=num_run,
            tally=tally_of(store, run_id),
            seconds=time.perf_counter() - started,
        )


def collect_into(
    agent: Agent,
    store: TraceStore,
    run_id: str,
    step: int,
    problems: Sequence[Problem],
    experts: Path,
    progress: Progress = SILENT,
) -> int:
    """Collect with a loaded agent; return how many rollouts were run."""
    from graphs.collect import Collection
    from graphs.collect import collect as collect_groups

    recipe = agent.recipe
    policy = agent.policy(agent.sampling)
    store.start_run(
        run_id,
        kind="collect",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    agent.pool.open(experts, run_id)
    wanted = Collection.of(
        recipe,
        run_id,
        problems,
        agent.pool,
        global_step=step,
        assistance=agent.assistance,
        solo_graph=agent.solo_half(policy),
        inputs=agent.inputs,
        answer_of=agent.answer_of,
    )
    with progress.bar("Collect (groups)", len(problems)) as bar:
        complete = num_complete(store, run_id, step, problems, recipe)
        bar.at(complete)
        if complete == len(problems):
            progress.say(f"The collection '{run_id}' is finished: nothing was run.")

        def on_group(group: RolloutGroup) -> None:
            bar.step()

        return collect_groups(
            agent.graph(policy), policy, store, wanted, on_group, agent.pool.rate_limited
        )


def num_complete(
    store: TraceStore, run_id: str, step: int, problems: Sequence[Problem], recipe: Recipe
) -> int:
    """Return how many of the problems have all their rollouts in the store, and none that runs
    again because it failed."""
    from graphs.failures import runs_again
    from graphs.rollout import group_key

    outcomes = store.outcomes(run_id)
    retry = recipe.rollouts.retry_failed
    errors = [outcomes.get(group_key(problem, step), {}) for problem in problems]
    return sum(
        len(found) >= recipe.collect.num_generations
        and not any(runs_again(error, retry) for error in found.values())
        for found in errors
    )


def tally_of(store: TraceStore, run_id: str) -> Tally:
    """Return the tally of a whole collection, other processes' parts too."""
    tally = Tally()
    for stored in store.trajectories(run_id=run_id):
        tally.add(stored.trajectory)
    return tally


def shard_of(problems: Sequence[Problem], shard: str | None) -> Sequence[Problem]:
    """Return the i-th of n equal parts, for `i/n` (from 1); all of them for None.

    Raises:
        UsageError: not of that form, or i is not in 1 to n.
    """
    if shard is None:
        return problems
    number, _, total = shard.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UsageError(f"--shard must be i/n with 1 <= i <= n, such as 1/4, got '{shard}'.")
    return problems[int(number) - 1 :: int(total)]
