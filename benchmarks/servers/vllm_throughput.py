"""Rollouts on a vLLM server against what it gives at most, and against the embedded engine.

Starts `eapo serve` (bfloat16), then alternates: 64 rollouts at once through graph and engine; the
same prompts as bare `/v1/completions` requests, 64 at once, each for as many tokens as its rollout
had; then the same rollouts on the embedded engine in bfloat16 and in float32. One JSON line with
tokens a second and ratios of the medians. At least 0.95 of the bare server and 1.3 of the embedded
engine are wanted. Needs `make vllm`.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time

import httpx2

from eapo_agents.recipe_file import load_recipe
from eapo_agents.tasks import load_problems
from eapo_agents.types import Sampling
from graphs.agent import Agent, load_agent
from graphs.rollout import RolloutPlan, run_rollouts

RECIPE = "cpu-smol"
PORT, ROUNDS = 8765, 5
NUM_PROBLEMS, NUM_ROLLOUTS = 16, 4
SAMPLING = Sampling(max_new_tokens=64)


def rollouts(agent: Agent, plans: list[RolloutPlan]) -> tuple[float, list[tuple[list[int], int]]]:
    """Seconds, and each rollout's prompt and number of sampled tokens."""
    policy = agent.policy(SAMPLING)
    graph = agent.solo_graph(policy)
    started = time.perf_counter()
    groups = asyncio.run(
        run_rollouts(graph, policy, plans, system_prompt="Think it through.", seed=0)
    )
    seconds = time.perf_counter() - started
    turns = [t.turns[0] for group in groups for t in group.trajectories_G]
    return seconds, [(list(turn.context_ids), len(turn.completion_ids)) for turn in turns]


async def bare(url: str, model: str, requests: list[tuple[list[int], int]]) -> float:
    """Seconds for the same requests without anything of ours."""
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:

        async def one(prompt: list[int], num_tokens: int) -> None:
            body = {"model": model, "prompt": prompt, "max_tokens": num_tokens, "top_p": 1.0}
            body |= {"temperature": 1.0, "ignore_eos": True, "logprobs": 0}
            body |= {"return_token_ids": True}
            (await client.post(f"{url}/v1/completions", json=body)).raise_for_status()

        started = time.perf_counter()
        await asyncio.gather(*(one(*request) for request in requests))
        return time.perf_counter() - started


def on_a_server(plans: list[RolloutPlan], *options: str) -> dict[str, list[float]]:
    """Tokens a second through the graph and bare, round by round."""
    url = f"http://127.0.0.1:{PORT}"
    rates: dict[str, list[float]] = {"graph": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "eapo_agents.cli.main", "serve", "--recipe", str(RECIPE)]
        command += ["--port", str(PORT), "--dtype", "bfloat16", "--json", *options]
        command += ["--max-model-len", "2048", "--log", f"{folder}/vllm.log"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            assert server.stdout.readline(), "the server did not start"
            agent = load_agent(load_recipe(RECIPE, [f"policy.servers=[{url}]"]))
            for _ in range(2):  # the first rounds of a server are slow
                rollouts(agent, plans)
            for _ in range(ROUNDS):
                seconds, requests = rollouts(agent, plans)
                num_tokens = sum(length for _, length in requests)
                rates["graph"].append(num_tokens / seconds)
                seconds = asyncio.run(bare(url, agent.recipe.policy.model, requests))
                rates["bare"].append(num_tokens / seconds)
        finally:
            server.terminate()
            server.wait()
    return rates


def embedded(plans: list[RolloutPlan], dtype: str) -> list[float]:
    """Tokens a second, round by round."""
    agent = load_agent(load_recipe(RECIPE, [f"policy.dtype={dtype}"]))
    rates = []
    for _ in range(ROUNDS + 1):
        seconds, requests = rollouts(agent, plans)
        rates.append(sum(length for _, length in requests) / seconds)
    return rates[1:]


def main() -> None:
    problems = load_problems("arithmetic", split="train", limit=NUM_PROBLEMS, seed=1)
    plans = [RolloutPlan(problem=p, rollouts=range(NUM_ROLLOUTS)) for p in problems]
    plain = on_a_server(plans, "--max-lora-rank", "0")
    with_adapters = on_a_server(plans)
    rates = {
        "graph_on_server": plain["graph"],
        "bare_server": plain["bare"],
        "graph_on_server_that_takes_adapters": with_adapters["graph"],
        "bare_server_that_takes_adapters": with_adapters["bare"],
        "embedded_bfloat16": embedded(plans, "bfloat16"),
        "embedded_float32": embedded(plans, "float32"),
    }
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours = max(medians["embedded_bfloat16"], medians["embedded_float32"])
    told = {
        "rollouts": NUM_PROBLEMS * NUM_ROLLOUTS,
        "of_bare_server": round(medians["graph_on_server"] / medians["bare_server"], 3),
        "of_embedded": round(medians["graph_on_server"] / ours, 2),
        "tokens_per_s": {name: round(rate) for name, rate in medians.items()},
        "rounds": {name: [round(r) for r in found] for name, found in rates.items()},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
