"""Turns of branches that run side by side: the same seed gives the same trace, whoever comes first;
and a turn that a thread without a context samples is not lost."""

import asyncio
import contextvars
import operator
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import pytest
from langchain_core.messages import HumanMessage
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Send

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.places import Level, in_order
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.types import Problem, Sampling
from graphs.rollout import RolloutPlan, run_rollouts

PROBLEM = Problem(id="p", question="What is 7 + 3?", answer="10", grader="exact")


class LateEngine(ScriptedEngine):
    """Writes a text that is a function of the key, after a delay that is not."""

    def __init__(self, renderer, delays: Callable[[], float]) -> None:
        super().__init__(renderer, lambda key, prompt: f"{key.turn} {key.branch % 100_000}")
        self.delays = delays
        self.num_sampled = 0

    async def generate(self, prompt_ids, sampling, key: RolloutKey, *, on_token=None):
        self.num_sampled += 1
        await asyncio.sleep(self.delays())
        return await super().generate(prompt_ids, sampling, key, on_token=on_token)


def policy_of(renderer, delays=lambda: 0.0) -> PolicyChatModel:
    engine = LateEngine(renderer, delays)
    return PolicyChatModel(engine=engine, renderer=renderer, sampling=Sampling(max_new_tokens=30))


def rolled_out(graph, policy, num_rollouts=1):
    plan = RolloutPlan(problem=PROBLEM, rollouts=range(num_rollouts))
    (group,) = asyncio.run(run_rollouts(graph, policy, [plan], system_prompt="", seed=0))
    return group.trajectories_G


class State(MessagesState):
    notes: Annotated[list[str], operator.add]


def side_by_side(policy):
    """Critics in one step, workers by Send, sub-agents that a node gathers, and a conclusion."""

    async def say(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    agent = StateGraph(MessagesState).add_node("one", say).add_node("two", say)
    agent = agent.add_edge(START, "one").add_edge("one", "two").compile()

    async def asked(state, what):
        found = await agent.ainvoke({"messages": [*state["messages"], HumanMessage(what)]})
        return found["messages"][-1].text

    async def critic(state):
        return {"notes": [await asked(state, "Criticise.")]}

    async def worker(state):
        return {"notes": [await asked({"messages": []}, state["part"])]}

    async def gather(state):
        found = await asyncio.gather(*(asked(state, what) for what in "xyz"))
        return {"notes": [await asked(state, " ".join(found))]}

    async def conclude(state):
        notes = HumanMessage("; ".join(state["notes"]))
        return {"messages": [await policy.ainvoke([*state["messages"], notes])]}

    graph = StateGraph(State).add_node("say", say).add_node("conclude", conclude)
    graph.add_node("a", critic).add_node("b", critic).add_node("worker", worker)
    graph.add_node("gather", gather).add_edge(START, "say").add_edge("say", "a")
    graph.add_edge("say", "b").add_edge(["a", "b"], "gather")
    parts = [Send("worker", {"part": part}) for part in "lmn"]
    graph.add_conditional_edges("gather", lambda state: parts, ["worker"])
    return graph.add_edge("worker", "conclude").compile()


def test_the_same_seed_gives_the_same_trace_whichever_branch_is_first(renderer):
    found = []
    for order in (1, -1, 3):
        delays = iter([0.004 * (n * order % 7) for n in range(200)])
        policy = policy_of(renderer, lambda delays=delays: next(delays))
        (trajectory,) = rolled_out(side_by_side(policy), policy)
        assert trajectory.error is None
        assert len(trajectory.turns) == policy.engine.num_sampled == 20
        assert trajectory.turns[-1].text == trajectory.answer
        found.append([(turn.id, turn.parent, turn.text) for turn in trajectory.turns])
    assert found[0] == found[1] == found[2]
    assert len({turn_id for turn_id, _, _ in found[0]}) == 20


def test_an_order_of_places_goes_by_step_then_node_and_keeps_what_follows_in_a_task():
    def at(*levels):
        return tuple(Level(*level) for level in levels)

    first, last = at((0, 1, "n", "t0")), at((0, 3, "n", "t9"))
    left, right = at((0, 2, "a", "t1")), at((0, 2, "b", "t2"))
    inner = at((0, 2, "a", "t1"), (0, 1, "m", "t3"))
    arrived = {"e": last, "d": right, "b": left, "c": inner, "a": first, "bb": left}
    assert in_order(list(arrived), arrived.get, str) == ["a", "b", "c", "bb", "d", "e"]
    unknown = {**arrived, "e": None}
    assert in_order(list(unknown), unknown.get, str) == list(unknown)


def in_a_pool(call):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def threaded(policy, how, *, question=False):
    def node(state, config):
        messages = [HumanMessage("What is 7 + 3?")] if question else state["messages"]
        if how == "config":
            said = in_a_pool(lambda: policy.invoke(messages, config))
        elif how == "context":
            context = contextvars.copy_context()
            said = in_a_pool(lambda: context.run(policy.invoke, messages))
        else:
            said = in_a_pool(lambda: policy.invoke(messages))
        return {"messages": [said]}

    async def then(state):
        return {"messages": [await policy.ainvoke([*state["messages"], HumanMessage("Sure?")])]}

    graph = StateGraph(MessagesState).add_node("node", node).add_node("then", then)
    return graph.add_edge(START, "node").add_edge("node", "then").compile()


@pytest.mark.parametrize("how", ["config", "context", "messages"])
def test_a_turn_of_a_plain_thread_is_recorded(renderer, how):
    policy = policy_of(renderer)
    trajectories = rolled_out(threaded(policy, how), policy, num_rollouts=4)
    assert [t.error for t in trajectories] == [None] * 4
    assert [[turn.parent for turn in t.turns] for t in trajectories] == [[None, 0]] * 4
    assert policy.engine.num_sampled == 8


def test_a_turn_of_a_plain_thread_that_could_be_any_rollout_s_spoils_them_all(renderer):
    policy = policy_of(renderer, lambda: 0.05)
    graph = threaded(policy, "nothing", question=True)
    (alone,) = rolled_out(graph, policy)
    assert [turn.parent for turn in alone.turns] == [None, 0]
    for trajectory in rolled_out(graph, policy, num_rollouts=3):
        assert "thread without a context" in trajectory.error


def test_a_turn_that_the_graph_does_not_wait_for_is_recorded_too(renderer):
    policy = policy_of(renderer, lambda: 0.05)
    waiting = []

    async def node(state):
        waiting.append(asyncio.create_task(policy.ainvoke([HumanMessage("aside")])))
        threading.Thread(target=lambda: policy.invoke(state["messages"])).start()
        return {"messages": [await policy.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()
    (trajectory,) = rolled_out(graph, policy)
    assert len(trajectory.turns) == policy.engine.num_sampled == 3


def test_what_is_sampled_while_another_rollout_is_scored_is_in_no_trace(renderer):
    policy = policy_of(renderer, lambda: 0.02)

    async def node(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    def judge(answer, problem):
        policy.invoke("Is that right?")
        return 1.0, True

    graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()
    plan = RolloutPlan(problem=PROBLEM, rollouts=range(3))
    (group,) = asyncio.run(
        run_rollouts(graph, policy, [plan], system_prompt="", seed=0, reward=judge)
    )
    assert [(t.error, len(t.turns)) for t in group.trajectories_G] == [(None, 1)] * 3
