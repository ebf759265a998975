"""What the graph costs over the raw engine: 32 concurrent rollouts against the same requests sent
straight to it.

The policy is warm-started first, so that it asks: rollouts have several turns and real
consultations. They leave their prompts; the engine then gets the very same prompts, keys and
settings, turn by turn in one cohort, and must return the very same tokens. Five rounds,
alternating; one JSON line with the ratio of the medians. At most 1.10 is wanted.
"""

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

from eapo_agents.policy.engine import RolloutKey
from eapo_agents.recipe_file import load_recipe
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.tasks import load_problems
from eapo_agents.types import Trajectory
from graphs.agent import Agent, load_agent
from graphs.consult import build_consult_graph
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.run import add_adapter
from trainers.warm_start import warm_start
from trainers.warm_start_episodes import scripted_episodes

RECIPE = "cpu-smol"
NUM_PROBLEMS, NUM_ROLLOUTS, ROUNDS = 8, 4, 5


def agent_that_asks() -> Agent:
    recipe = load_recipe(RECIPE)
    agent = load_agent(recipe)
    assert recipe.warm_start is not None
    taught = load_problems("arithmetic", split="train", limit=recipe.warm_start.problems, seed=0)
    episodes = scripted_episodes(agent, taught)
    add_adapter(agent)
    with tempfile.TemporaryDirectory() as folder:
        warm_start(agent, episodes, Path(folder), lambda done, total: None)
    return agent


def report(trajectories: list[Trajectory], graph_s: list[float], engine_s: list[float]) -> None:
    turns = [turn for t in trajectories for turn in t.turns]
    figures = {
        "benchmark": "graph_overhead",
        "rollouts": len(trajectories),
        "turns": len(turns),
        "consultations": sum(len(turn.consultations) for turn in turns),
        "sampled_tokens": sum(len(turn.completion_ids) for turn in turns),
        "graph_s": statistics.median(graph_s),
        "engine_s": statistics.median(engine_s),
        "ratio": statistics.median(graph_s) / statistics.median(engine_s),
    }
    print(json.dumps(figures))


def main() -> None:
    agent = agent_that_asks()
    system_prompt = agent.recipe.task.system_prompt
    policy = agent.policy(agent.sampling)
    graph = build_consult_graph(
        policy,
        agent.pool,
        acceptance=AcceptanceSchedule(kind="constant"),
        turns=TurnBudget(start=3, end=3),
    )
    problems = load_problems("arithmetic", split="train", limit=NUM_PROBLEMS, seed=1)
    plans = [RolloutPlan(problem=p, rollouts=range(NUM_ROLLOUTS)) for p in problems]

    def through_the_graph():
        agent.engine.weights_changed(0)  # an empty cache
        started = time.perf_counter()
        groups = asyncio.run(
            run_rollouts(graph, policy, plans, system_prompt=system_prompt, seed=0)
        )
        return time.perf_counter() - started, [t for g in groups for t in g.trajectories_G]

    async def straight(trajectories):
        with agent.engine.cohort(len(trajectories)) as cohort:

            async def one(trajectory):
                prompt: list[int] = []
                sampled = []
                for number, turn in enumerate(trajectory.turns):
                    prompt += turn.context_ids
                    key = RolloutKey(
                        seed=0,
                        problem_id=trajectory.problem.id,
                        step=0,
                        rollout=trajectory.rollout,
                        turn=number,
                    )
                    done = await agent.engine.generate(prompt, agent.sampling, key)
                    sampled.append(done.completion_ids)
                    prompt += done.completion_ids
                cohort.finished()
                return sampled

            return await asyncio.gather(*(one(t) for t in trajectories))

    through_the_graph()  # warms up
    graph_s, engine_s = [], []
    for _ in range(ROUNDS):
        seconds, trajectories = through_the_graph()
        graph_s.append(seconds)
        agent.engine.weights_changed(0)
        started = time.perf_counter()
        sampled = asyncio.run(straight(trajectories))
        engine_s.append(time.perf_counter() - started)
        assert sampled == [[turn.completion_ids for turn in t.turns] for t in trajectories]
    report(trajectories, graph_s, engine_s)


if __name__ == "__main__":
    main()
