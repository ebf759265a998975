"""Answers benchmarks with a policy: the tool-free graph, or the graph with experts that all reply.

Every sample is kept as a trajectory as soon as its wave ends, so that the same command goes on
where it stopped; grading comes afterwards, from what was kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Sampling, Trajectory
from evals.benchmark import Benchmark
from evals.sealing import seal
from graphs.agent import Agent
from graphs.rollout import RolloutPlan, run_rollouts

SOLO, ASSISTED = "solo", "assisted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How answers are sampled."""

    samples: int
    temperature: float
    top_p: float
    max_new_tokens: int

    @classmethod
    def of(cls, benchmark: Benchmark, **changed: Any) -> Protocol:
        """The benchmark's own protocol, where nothing (None) is changed."""
        own = {
            "samples": benchmark.samples,
            "temperature": benchmark.temperature,
            "top_p": benchmark.top_p,
            "max_new_tokens": benchmark.max_new_tokens,
        }
        return cls(**{**own, **{k: v for k, v in changed.items() if v is not None}})

    @property
    def sampling(self) -> Sampling:
        """For the engine."""
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, max_new_tokens=self.max_new_tokens
        )


def answer(
    agent: Agent,
    benchmark: Benchmark,
    problems: Sequence[Problem],
    protocol: Protocol,
    store: TraceStore,
    run_id: str,
    *,
    mode: str = SOLO,
    concurrency: int,
    on_sample: Callable[[Trajectory], None] = lambda trajectory: None,
) -> None:
    """Samples what the store does not have yet under `run_id`.

    Args:
        mode: `solo`, or `assisted`: the consult graph, where every expert's reply is accepted.
        concurrency: samples in flight at once; batches are made of them.

    Raises:
        BudgetError: the experts' budget is spent; the samples that needed no more of it are kept.
    """
    recipe = agent.recipe
    store.start_run(
        run_id,
        kind="eval",
        recipe={"seed": recipe.seed, "benchmark": benchmark.name, **asdict(protocol)},
        sampling=protocol.sampling,
        policy=agent.engine.policy_version,
    )
    policy = agent.policy(protocol.sampling)
    everybody = AcceptanceSchedule(kind="constant", start=1.0)
    graph = agent.solo_graph(policy) if mode == SOLO else agent.graph(policy, acceptance=everybody)
    have = store.have(run_id)

    def keep(trajectory: Trajectory) -> None:
        kept = seal(trajectory) if benchmark.sealed else trajectory
        store.append(kept, run_id=run_id, group_key=trajectory.problem.id)
        on_sample(trajectory)

    for plans in _waves(problems, protocol.samples, have, concurrency):
        asyncio.run(_run(graph, policy, plans, recipe.seed, keep))


async def _run(
    graph: Any,
    policy: Any,
    plans: Sequence[RolloutPlan],
    seed: int,
    keep: Callable[[Trajectory], None],
) -> None:
    await run_rollouts(
        graph,
        policy,
        plans,
        system_prompt="",  # the benchmarks' prompts are whole
        seed=seed,
        scored=False,
        on_trajectory=keep,
    )


def _waves(
    problems: Sequence[Problem], samples: int, have: dict[str, set[int]], size: int
) -> Iterator[list[RolloutPlan]]:
    """What is missing, in waves of at most `size` samples."""
    missing = [
        (problem, rollout)
        for problem in problems
        for rollout in range(samples)
        if rollout not in have.get(problem.id, ())
    ]
    for start in range(0, len(missing), size):
        wave: dict[str, tuple[Problem, list[int]]] = {}
        for problem, rollout in missing[start : start + size]:
            wave.setdefault(problem.id, (problem, []))[1].append(rollout)
        yield [RolloutPlan(problem=p, rollouts=rollouts) for p, rollouts in wave.values()]
