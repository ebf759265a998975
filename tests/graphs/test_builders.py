"""Graphs by name: ours with and without experts, and a user's."""

import asyncio
import sys
import textwrap

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from eapo_agents.errors import UsageError
from graphs.rollout import run_group

OWN = """
from langgraph.graph import START, MessagesState, StateGraph

def chain(policy, **ignored):
    async def speak(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}
    return StateGraph(MessagesState).add_node("n", speak).add_edge(START, "n")

def alone(policy):
    return chain(policy).compile(name="alone")

def asking(policy, tools, greeting="hello"):
    return chain(policy).compile(name=f"{greeting}-{len(tools)}")

def limited(policy, steps=3):
    return chain(policy).compile(name=f"steps-{steps}")

def unfinished(policy):
    return chain(policy)

def broken(policy):
    raise RuntimeError("no luck")
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_graphs.py").write_text(textwrap.dedent(OWN))
    sys.modules.pop("own_graphs", None)
    monkeypatch.syspath_prepend(str(tmp_path))


def with_graph(agent, name, **options):
    agent.recipe = agent.recipe.model_copy(update={"graph": name, "graph_options": options})
    return agent


def names(agent):
    policy = agent.policy(agent.sampling)
    return [g(policy).name for g in (agent.graph, agent.solo_graph, agent.evaluated_graph)]


def test_each_of_ours_has_a_variant_without_experts_and_one_that_is_evaluated(agent):
    assert names(with_graph(agent, "consult")) == ["consult", "solo", "solo"]
    assert names(with_graph(agent, "solo")) == ["solo", "solo", "solo"]
    assert names(with_graph(agent, "workflow")) == ["workflow", "solo", "workflow"]
    assert names(with_graph(agent, "leap", paths=2)) == ["leap", "leap", "leap"]


def test_a_user_s_builder_gets_the_experts_only_where_it_asks_for_them(agent, own):
    assert names(with_graph(agent, "own_graphs:alone")) == ["alone"] * 3
    with_graph(agent, "own_graphs:asking", greeting="hi")
    assert names(agent) == ["hi-1", "hi-0", "hi-0"]
    assert names(with_graph(agent, "own_graphs:limited", steps=5)) == ["steps-5"] * 3


def test_a_user_s_graph_runs_and_keeps_conversations(agent, own, problem):
    with_graph(agent, "own_graphs:alone")
    policy = agent.policy(agent.sampling)
    graph = agent.graph(policy, InMemorySaver())
    assert graph.checkpointer is not None
    graph = agent.graph(policy)
    group = asyncio.run(run_group(graph, policy, problem, 2, system_prompt="", seed=0))
    assert [t.error for t in group.trajectories_G] == [None, None]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("consul", {}, "Unknown graph 'consul'. Did you mean 'consult'"),
        ("own_graphs:nothing", {}, "has no 'nothing'"),
        ("own_graphs:unfinished", {}, r"returned a StateGraph: call its compile\(\)"),
        ("own_graphs:broken", {}, "cannot be built: RuntimeError: no luck"),
        ("own_graphs:alone", {"paths": 2}, r"graph_options \{'paths': 2\}"),
        ("consult", {"paths": 2}, r"graph_options \{'paths': 2\}"),
        ("leap", {"paths": 0}, "graph_options.paths must be an integer from 1"),
        ("json:JSONDecoder", {}, "must be a function"),
    ],
)
def test_a_graph_that_cannot_be_is_one_sentence(agent, own, name, options, says):
    with_graph(agent, name, **options)
    with pytest.raises(UsageError, match=says):
        agent.graph(agent.policy(agent.sampling))
