"""`eapo collect`: one process's part of a collection, or all of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eapo_agents.cli.commands import (
    expert_file,
    load_agent,
    problems_of,
    refuse_people,
    show,
    store_folder,
)
from eapo_agents.cli.progress import console, progress_bar
from eapo_agents.errors import ErrorBudgetError, UsageError
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import to_yaml
from eapo_agents.types import ConsultationStatus, RolloutGroup, Trajectory


@dataclass(slots=True)
class Tally:
    """What rollouts cost and gave."""

    rollouts: int = 0
    failed: int = 0
    correct: int = 0
    reward: float = 0.0
    calls: int = 0
    withheld: int = 0
    sampled_tokens: int = 0

    def add(self, trajectory: Trajectory) -> None:
        """Counts one trajectory."""
        self.rollouts += 1
        self.failed += trajectory.error is not None
        self.correct += bool(trajectory.correct)
        self.reward += trajectory.reward or 0.0
        self.sampled_tokens += sum(len(turn.completion_ids) for turn in trajectory.turns)
        for turn in trajectory.turns:
            for consultation in turn.consultations:
                self.withheld += consultation.status is ConsultationStatus.WITHHELD
                self.calls += consultation.status in (
                    ConsultationStatus.ACCEPTED,
                    ConsultationStatus.FAILED,
                    ConsultationStatus.TIMEOUT,
                )

    def summary(self) -> dict[str, Any]:
        """For people and programs."""
        scored = max(1, self.rollouts - self.failed)
        return {
            "rollouts": self.rollouts,
            "failed": self.failed,
            "accuracy": self.correct / scored,
            "reward": self.reward / scored,
            "expert_calls": self.calls,
            "expert_calls_withheld": self.withheld,
            "sampled_tokens": self.sampled_tokens,
        }


def collect(
    recipe: Recipe,
    store_at: str,
    run_id: str,
    step: int,
    *,
    shard: str | None,
    ray_tasks: int | None,
    as_json: bool,
) -> None:
    """Problems x G rollouts into the store: here, or by tasks of a Ray cluster; with a shard, only
    those of its problems."""
    if shard is not None and ray_tasks is not None:
        raise UsageError("--ray makes shards of its own: drop --shard or --ray.")
    started = time.perf_counter()
    shard_of([], shard)
    console.print(to_yaml(recipe).rstrip(), style="dim", markup=False)
    if ray_tasks is not None:
        from eapo_agents.cli.ray_collecting import collect_by_tasks

        facts, tally = collect_by_tasks(recipe, store_at, run_id, step, ray_tasks)
    else:
        facts, tally = _collect_here(recipe, store_at, run_id, step, shard)
    seconds = time.perf_counter() - started
    show({"run_id": run_id, **facts, **tally.summary(), "seconds": seconds}, as_json)
    if tally.failed > recipe.collect.max_error_share * max(1, tally.rollouts):
        raise ErrorBudgetError(
            f"{tally.failed} of {tally.rollouts} rollouts failed, and at most "
            f"{recipe.collect.max_error_share:.0%} may: see `eapo traces stats {facts['store']}`."
        )


def _collect_here(
    recipe: Recipe, store_at: str, run_id: str, step: int, shard: str | None
) -> tuple[dict[str, Any], Tally]:
    from eapo_agents.store import TraceStore

    problems = shard_of(problems_of(recipe, "train", recipe.collect.problems), shard)
    agent = load_agent(recipe)
    refuse_people(agent.pool, "collect")
    experts = expert_file(recipe, store_folder(store_at))
    with TraceStore.open(store_at, create=True) as store:
        num_run = collect_into(agent, store, run_id, step, problems, experts)
        return {"store": store.name, "run_now": num_run}, tally_of(store, run_id)


def collect_into(
    agent: Any, store: Any, run_id: str, step: int, problems: Any, experts: Path
) -> int:
    """Collects with a progress bar; returns how many rollouts it ran."""
    from graphs.collect import Collection
    from graphs.collect import collect as collect_groups

    recipe = agent.recipe
    policy = agent.policy(agent.sampling)
    agent_version = agent.engine.policy_version
    store.start_run(
        run_id,
        kind="collect",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent_version,
    )
    agent.pool.open(experts, run_id)
    wanted = Collection.of(recipe, run_id, problems, global_step=step, assistance=agent.assistance)
    with progress_bar("Collect (groups)", len(problems)) as bar:
        bar.at(num_complete(store, run_id, step, problems, recipe))

        def on_group(group: RolloutGroup) -> None:
            bar.step()

        return collect_groups(agent.consult_graph(policy), policy, store, wanted, on_group)


def num_complete(store: Any, run_id: str, step: int, problems: Any, recipe: Recipe) -> int:
    """How many of the problems have all their rollouts in the store."""
    from graphs.rollout import group_key

    have = store.have(run_id)
    wanted = recipe.collect.num_generations
    return sum(len(have.get(group_key(problem, step), ())) >= wanted for problem in problems)


def tally_of(store: Any, run_id: str) -> Tally:
    """The tally of a whole collection, other processes' parts too."""
    tally = Tally()
    for stored in store.trajectories(run_id=run_id):
        tally.add(stored.trajectory)
    return tally


def shard_of(problems: Sequence[Any], shard: str | None) -> Sequence[Any]:
    """The i-th of n equal parts, for `i/n` (from 1); all of them for None.

    Raises:
        UsageError: not of that form, or i is not in 1 to n.
    """
    if shard is None:
        return problems
    number, _, total = shard.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise UsageError(f"--shard must be i/n with 1 <= i <= n, such as 1/4, got '{shard}'.")
    return problems[int(number) - 1 :: int(total)]
