"""Run by test_collect: collects with the real graph, a real store and a scripted policy, in
processes to be killed.

Reads commands, one a line: `STORE` forks a process that collects into it and prints its number.
Forking spares each of them the seconds that the imports take.
"""

import os
import sys

from transformers import AutoTokenizer

from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from eapo_agents.tasks import load_problems
from eapo_agents.types import Sampling
from graphs.collect import Collection, collect
from graphs.consult import build_consult_graph

NUM_PROBLEMS, NUM_ROLLOUTS = 150, 4


def run(policy: PolicyChatModel, at: str) -> None:
    pool = ExpertPool(
        [
            make_expert(
                "scripted",
                name="a",
                timeout_s=5,
                options={"default": "a reply", "delay_s": 0.02},
            )
        ]
    )
    graph = build_consult_graph(
        policy, pool, acceptance=AcceptanceSchedule(), turns=TurnBudget(start=3, end=3)
    )
    with TraceStore.open(at, create=True) as store:
        store.start_run(
            "run",
            kind="collect",
            recipe={},
            sampling=policy.sampling,
            policy=policy.engine.policy_version,
        )
        wanted = Collection(
            run_id="run",
            problems=load_problems("arithmetic", split="train", limit=NUM_PROBLEMS),
            num_rollouts=NUM_ROLLOUTS,
            concurrency=16,
            seed=0,
            system_prompt="Solve.",
        )
        num_run = collect(graph, policy, store, wanted)
        print(f"ran {num_run}", flush=True)


def main() -> None:
    renderer = ChatRenderer(AutoTokenizer.from_pretrained(sys.argv[1]))
    call = format_call("a", {"query": "1 + 1"})
    policy = PolicyChatModel(
        engine=ScriptedEngine(
            renderer, lambda key, prompt: call if key.turn == 0 else "Answer: 19"
        ),
        renderer=renderer,
        sampling=Sampling(),
    )
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(policy, line.strip())
            os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("gone", flush=True)


if __name__ == "__main__":
    main()
