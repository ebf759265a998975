"""How close the loop that fills a store comes to ideal list scheduling.

    python benchmarks/scheduling.py [--rollouts 256] [--at-once 32] [--mean-s 1]

A scripted engine takes lognormal times of sigma 0.5, 1 and 1.5, drawn from names, so that every
mode meets the same ones. Ideal: each rollout, in the given order, starts on the place that is free
first. One JSON line with time over ideal time for `collect`, `eval` and a step of live training. At
most 1.05 is wanted; in waves it was 2.2, 3.1 and 3.4.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import Completion, RolloutKey
from eapo_agents.policy.fresh import make_model
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.store import TraceStore
from eapo_agents.types import Problem, Sampling
from graphs.collect import Collection, collect
from graphs.concurrency import Concurrency
from graphs.fill import fill
from graphs.rollout import Rollouts, group_key
from graphs.solo import build_solo_graph
from trainers.sources import LiveRollouts

G = 4
SIGMAS = (0.5, 1.0, 1.5)


class TimedEngine(ScriptedEngine):
    """Takes its time for each rollout."""

    def __init__(self, renderer: ChatRenderer, seconds_of: Callable[[str, int], float]) -> None:
        super().__init__(renderer, lambda key, prompt: "Answer: 1")
        self._seconds_of = seconds_of

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        await asyncio.sleep(self._seconds_of(key.problem_id, key.rollout))
        return await super().generate(prompt_ids, sampling, key, on_token=on_token)


def durations(sigma: float, mean_s: float) -> Callable[[str, int], float]:
    """Return (problem, rollout) -> lognormal seconds of this mean."""

    def seconds_of(problem_id: str, rollout: int) -> float:
        rng = random.Random(f"{sigma}/{problem_id}/{rollout}")
        return rng.lognormvariate(math.log(mean_s) - sigma**2 / 2, sigma)

    return seconds_of


def ideal_s(seconds: Sequence[float], at_once: int) -> float:
    """Return when the last ends, each starting in order on the place that is free first."""
    free = [0.0] * at_once
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def ratios(
    renderer: ChatRenderer, rollouts: int, at_once: int, sigma: float, mean_s: float
) -> dict[str, float]:
    """Return mode -> time over ideal time."""
    seconds_of = durations(sigma, mean_s)
    policy = PolicyChatModel(
        engine=TimedEngine(renderer, seconds_of), renderer=renderer, sampling=Sampling()
    )
    problems = [
        Problem(id=f"p{n}", question="?", answer="1", grader="number") for n in range(rollouts // G)
    ]
    ideal = ideal_s([seconds_of(p.id, r) for p in problems for r in range(G)], at_once)
    how = Rollouts(graph=build_solo_graph(policy), policy=policy, system_prompt="", seed=0)
    limit = Concurrency(at_once, policy.engine)

    def collected(store: TraceStore, some: Sequence[Problem]) -> None:
        wanted = Collection(
            run_id="r",
            problems=some,
            num_rollouts=G,
            concurrency=at_once,
            seed=0,
            system_prompt="",
        )
        collect(how.graph, policy, store, wanted)

    def evaluated(store: TraceStore, some: Sequence[Problem]) -> None:
        plans = [how.plan(p, G, run_id="r", key=group_key(p, 0)) for p in some]
        fill(store, plans, how.run, engine=policy.engine, concurrency=limit)

    def live(store: TraceStore, some: Sequence[Problem]) -> None:
        source = LiveRollouts(
            rollouts=how, concurrency=limit, problems=some, num_rollouts=G, store=store, run_id="r"
        )
        source.groups(range(len(some)), 1)

    modes = {"collect": collected, "eval": evaluated, "live": live}
    return {name: timed_s(run, policy, problems) / ideal for name, run in modes.items()}


def timed_s(
    run: Callable[[TraceStore, Sequence[Problem]], None],
    policy: PolicyChatModel,
    problems: Sequence[Problem],
) -> float:
    """Return the seconds that a run takes in a store of its own, after one rollout group that
    pays for imports and templates."""
    with tempfile.TemporaryDirectory() as folder:
        for number, some in enumerate([problems[:1], problems]):
            with TraceStore.open(Path(folder) / f"{number}.db", create=True) as store:
                store.start_run(
                    "r",
                    kind="collect",
                    recipe={},
                    sampling=policy.sampling,
                    policy=policy.engine.policy_version,
                )
                started = time.perf_counter()
                run(store, some)
                seconds = time.perf_counter() - started
    return seconds


def small_renderer() -> ChatRenderer:
    """Return the renderer of a tokenizer that is made here."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        texts = ["What is 1 + 2 * 3? Answer: 7 4 5 6 8 9 0"] * 20
        make_model(folder, texts, layers=1, width=16, heads=2, vocabulary=300, seed=0)
        return ChatRenderer(AutoTokenizer.from_pretrained(folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rollouts", type=int, default=256)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--mean-s", type=float, default=1.0)
    given = parser.parse_args()
    renderer = small_renderer()
    for sigma in SIGMAS:
        found = ratios(renderer, given.rollouts, given.at_once, sigma, given.mean_s)
        rounded = {name: round(ratio, 3) for name, ratio in found.items()}
        print(json.dumps({"benchmark": "scheduling", **vars(given), "sigma": sigma, **rounded}))


if __name__ == "__main__":
    main()
