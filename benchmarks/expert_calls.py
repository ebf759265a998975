"""What the consult graph and the pool add to the time that experts take.

Prints, from one run: a turn of K = 3 experts of 1 s each; 64 rollouts of two consultations of 1 s,
one after another, over what one such chain needs; and calls a second through pool, SDK and ledger
to a local HTTP server that answers at once, over bare calls of the same SDK.
"""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from transformers import AutoTokenizer

from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.models import EMBEDDED, find_model
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.types import Problem, Sampling
from graphs.consult import build_consult_graph
from graphs.rollout import run_group

DELAY_S, CALLS, ROUNDS = 1.0, 400, 5
SERVER = Path(__file__).parents[1] / "tests" / "experts" / "faulty_server.py"
PROBLEM = Problem(id="p", question="What is 7 + 3 * 4?", answer="19", grader="number")


def scripted(turns: list[str]) -> PolicyChatModel:
    source = find_model(EMBEDDED)
    tokenizer = AutoTokenizer.from_pretrained(source.location, gguf_file=source.gguf_file)
    renderer = ChatRenderer(tokenizer)
    engine = ScriptedEngine(renderer, lambda key, prompt: turns[min(key.turn, len(turns) - 1)])
    return PolicyChatModel(engine=engine, renderer=renderer, sampling=Sampling(max_new_tokens=200))


def seconds(turns: list[str], num_rollouts: int) -> float:
    options = {"default": "a reply", "delay_s": DELAY_S}
    pool = ExpertPool([make_expert("scripted", name=name, options=options) for name in "abc"])
    policy = scripted(turns)
    graph = build_consult_graph(
        policy, pool, acceptance=AcceptanceSchedule(kind="constant"), turns=TurnBudget()
    )

    async def run() -> float:
        await run_group(graph, policy, PROBLEM, 1, system_prompt="", seed=0)  # templates
        started = time.perf_counter()
        await run_group(graph, policy, PROBLEM, num_rollouts, system_prompt="", seed=1)
        return time.perf_counter() - started

    return asyncio.run(run())


def calls_a_second(url: str) -> tuple[float, float]:
    """(through the pool, bare), the best of rounds taken in turn."""
    from openai import AsyncOpenAI

    expert = make_expert(
        "openai-chat", name="a", options={"model": "m", "base_url": url}, stored=False
    )
    pool = ExpertPool([expert])

    async def through_pool(query: str) -> None:
        assert (await pool.ask("a", {"query": query}, CallSite())).accepted

    async def rounds() -> tuple[float, float]:
        client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)

        async def bare(query: str) -> None:
            message = {"role": "user", "content": query}
            await client.chat.completions.create(model="m", messages=[message])

        best = {through_pool: 0.0, bare: 0.0}
        for number in range(ROUNDS):
            for call in best:
                started = time.perf_counter()
                for start in range(0, CALLS, 32):
                    await asyncio.gather(*(call(f"{number} {start + n}") for n in range(32)))
                best[call] = max(best[call], CALLS / (time.perf_counter() - started))
        return best[through_pool], best[bare]

    return asyncio.run(rounds())


def main() -> None:
    ask = {name: format_call(name, {"query": "q"}) for name in "abc"}
    together = seconds(["".join(ask.values()), "Answer: 19"], 1)
    chains = seconds([ask["a"], ask["b"], "Answer: 19"], 64)
    server = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        pooled, bare = calls_a_second(f"http://127.0.0.1:{int(server.stdout.readline())}/ok/v1")
    finally:
        server.kill()
    facts = {
        "benchmark": "expert_calls",
        "three_experts_of_1_s": round(together, 3),
        "64_chains_over_one": round(chains / (2 * DELAY_S), 3),
        "calls_a_second_pool": round(pooled),
        "calls_a_second_bare": round(bare),
        "pool_over_bare": round(pooled / bare, 3),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
