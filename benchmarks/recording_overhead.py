"""What the recording of a user's graph costs beside the engine: 32 rollouts at once.

    python benchmarks/recording_overhead.py

A graph of one's own calls the policy three times a rollout. It runs with our chat model, and with
one that renders, samples and parses the same but keeps no records and knows no rollouts. The
difference is set against the time that the engine alone takes for the same requests (the small
model, 24 tokens a turn). One JSON line; a share of at most 0.02 is wanted.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

from eapo_agents.policy.chat_messages import message_of
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.models import EMBEDDED, load_policy
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import parse_turn
from eapo_agents.policy.transformers_engine import TransformersEngine
from eapo_agents.types import Problem, Sampling
from graphs.rollout import RolloutPlan, first_messages, run_rollouts

NUM_ROLLOUTS, TURNS, ROUNDS = 32, 3, 15
SAMPLING = Sampling(max_new_tokens=24)
KEY = RolloutKey(seed=0, problem_id="p", step=0, rollout=0, turn=0)
TEXT = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen."
PROBLEM = Problem(id="p", question="What is 7 + 3 * 4?", answer="19", grader="exact")


class WithoutRecords(PolicyChatModel):
    """The same chat model, without records."""

    async def _agenerate(self, messages: list[BaseMessage], *args, **kwargs) -> ChatResult:
        ids = self.renderer.prompt(messages, ())
        completion = await self.engine.generate(ids, self.sampling, KEY)
        text = self.renderer.decode(completion.completion_ids)
        message = message_of(
            parse_turn(text),
            "0",
            finish_reason=completion.finish_reason,
            model=completion.policy.model,
            num_prompt=len(ids),
            num_sampled=len(completion.completion_ids),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def graph_of(policy):
    async def node(state):
        messages = list(state["messages"])
        for _ in range(TURNS):
            messages += [await policy.ainvoke(messages), HumanMessage("Are you sure?")]
        return {"messages": messages[len(state["messages"]) : -1]}

    return StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()


async def recorded(policy) -> float:
    plan = RolloutPlan(problem=PROBLEM, rollouts=range(NUM_ROLLOUTS))
    graph = graph_of(policy)
    started = time.process_time()
    (group,) = await run_rollouts(
        graph, policy, [plan], system_prompt="Solve.", seed=0, scored=False
    )
    assert all(len(t.turns) == TURNS for t in group.trajectories_G)
    return time.process_time() - started


async def unrecorded(policy) -> float:
    graph = graph_of(policy)
    given = {"messages": first_messages("Solve.", PROBLEM.question)}
    started = time.process_time()
    await asyncio.gather(*(graph.ainvoke(given) for _ in range(NUM_ROLLOUTS)))
    return time.process_time() - started


def engine_alone(loaded, renderer) -> float:
    """Return the seconds that the engine takes for the requests of the rollouts."""
    stop_ids = sorted(renderer.stop_ids)
    engine = TransformersEngine(loaded.model, name="small", stop_ids=stop_ids, base=loaded.base)

    async def one(rollout: int, cohort) -> None:
        ids = renderer.prompt(first_messages("Solve.", PROBLEM.question), ())
        for turn in range(TURNS):
            key = RolloutKey(seed=0, problem_id="p", step=0, rollout=rollout, turn=turn)
            done = await engine.generate(ids, SAMPLING, key)
            ids = [*ids, *done.completion_ids, *renderer.encode_text(" Are you sure?")]
        cohort.finished()

    async def all_of_them() -> None:
        with engine.cohort(NUM_ROLLOUTS) as cohort:
            await asyncio.gather(*(one(rollout, cohort) for rollout in range(NUM_ROLLOUTS)))

    started = time.process_time()  # as above: another program on the machine does not count
    asyncio.run(all_of_them())
    return time.process_time() - started


def main() -> None:
    loaded = load_policy(EMBEDDED)
    renderer = ChatRenderer(loaded.tokenizer)
    engine = ScriptedEngine(renderer, lambda key, prompt: TEXT)
    parts = {"engine": engine, "renderer": renderer, "sampling": SAMPLING}
    ours, bare = PolicyChatModel(**parts), WithoutRecords(**parts)
    times: dict[str, list[float]] = {"recorded": [], "unrecorded": []}
    for _ in range(ROUNDS):
        times["recorded"].append(asyncio.run(recorded(ours)))
        times["unrecorded"].append(asyncio.run(unrecorded(bare)))
    median = {name: statistics.median(found) for name, found in times.items()}
    engine_s = engine_alone(loaded, renderer)
    figures = {
        "benchmark": "recording_overhead",
        "rollouts": NUM_ROLLOUTS,
        "turns": NUM_ROLLOUTS * TURNS,
        "recorded_s": round(median["recorded"], 4),
        "unrecorded_s": round(median["unrecorded"], 4),
        "engine_s": round(engine_s, 2),
        "share_of_engine": round((median["recorded"] - median["unrecorded"]) / engine_s, 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
