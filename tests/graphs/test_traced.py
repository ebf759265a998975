"""What a callback handler of the user's sees of rollouts: real handlers, real graphs, a scripted
policy."""

import asyncio
from contextvars import ContextVar

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.tracers.context import register_configure_hook

from eapo_agents.errors import UsageError
from eapo_agents.types import Role
from graphs.rollout import run_group
from graphs.solo import build_solo_graph
from graphs.traced import NAME

LISTENING: ContextVar[AsyncCallbackHandler | None] = ContextVar("listening", default=None)
register_configure_hook(LISTENING, True)  # as tracers do that an environment variable switches on


class Seen(AsyncCallbackHandler):
    """Keeps what a tracer would send."""

    def __init__(self):
        self.began, self.ended, self.failed, self.asked = {}, {}, {}, []

    async def on_chain_start(self, serialized, inputs, *, run_id, **facts):
        self.began[run_id] = facts | {"inputs": inputs}

    async def on_chain_end(self, outputs, *, run_id, **_):
        self.ended[run_id] = outputs

    async def on_chain_error(self, error, *, run_id, **_):
        self.failed[run_id] = error

    async def on_chat_model_start(self, serialized, messages, **facts):
        self.asked.append(facts)

    def rollouts(self):
        """(metadata, outcome) of each rollout, in their order."""
        runs = {run for run, facts in self.began.items() if facts["name"] == NAME}
        found = [(self.began[run]["metadata"], self.ended.get(run)) for run in runs]
        return sorted(found, key=lambda one: one[0]["eapo_rollout_index"])


@pytest.fixture
def policy(scripted):
    return scripted(lambda key, prompt: "Answer: 19" if key.rollout == 0 else "Answer: 8")


def run(graph, policy, problem, **more):
    options = {"system_prompt": "", "seed": 3, "global_step": 7, **more}
    return asyncio.run(run_group(graph, policy, problem, 2, **options))


def test_a_tracer_sees_problem_rollout_and_step_and_at_the_end_the_reward(policy, problem):
    seen = Seen()
    LISTENING.set(seen)
    try:
        group = run(build_solo_graph(policy), policy, problem)
    finally:
        LISTENING.set(None)
    assert [t.reward for t in group.trajectories_G] == [1.0, 0.1]
    (first, right), (second, wrong) = seen.rollouts()
    assert first["eapo_problem_id"] == problem.id
    assert (first["eapo_step"], first["eapo_seed"]) == (7, 3)
    assert [one["eapo_rollout_index"] for one in (first, second)] == [0, 1]
    assert (right["reward"], right["correct"]) == (1.0, True)
    assert (wrong["reward"], wrong["correct"]) == (0.1, False)
    # the policy's own calls are found by the same names
    assert {facts["metadata"]["eapo_rollout_index"] for facts in seen.asked} == {0, 1}
    assert all(NAME in facts["tags"] for facts in seen.asked)


def test_a_graphs_own_handler_sees_its_rollouts_once_each(policy, problem):
    seen = Seen()
    graph = create_agent(policy, []).with_config(callbacks=[seen])
    group = run(graph, policy, problem)
    assert {t.role for t in group.trajectories_G} == {Role.OWN}
    assert [outcome["reward"] for _, outcome in seen.rollouts()] == [1.0, 0.1]
    assert len(seen.asked) == 2
    parents = {facts["parent_run_id"] for facts in seen.began.values()}
    roots = {run_id for run_id, facts in seen.began.items() if facts["name"] == NAME}
    assert roots <= parents  # the graph's own run is within


def test_an_answer_that_nobody_scored_has_no_reward_in_a_trace(policy, problem):
    seen = Seen()
    graph = create_agent(policy, []).with_config(callbacks=[seen])
    run(graph, policy, problem, scored=False)
    assert [outcome["reward"] for _, outcome in seen.rollouts()] == [None, None]


def test_a_rollout_that_fails_and_one_whose_scorer_fails_are_told_apart(policy, problem, scripted):
    seen = Seen()

    def breaks(text, problem):
        raise UsageError("The scorer broke.")

    graph = create_agent(policy, []).with_config(callbacks=[seen])
    with pytest.raises(UsageError, match="scorer broke"):
        run(graph, policy, problem, reward=breaks)
    assert any("scorer broke" in str(error) for error in seen.failed.values())
    failing = Seen()
    graph = create_agent(policy, []).with_config(callbacks=[failing])
    run(graph, policy, problem, inputs=lambda problem: {"messages": problem.nothing})
    told = [outcome["error"] for _, outcome in failing.rollouts()]
    assert all("nothing" in error for error in told)
    assert [outcome["reward"] for _, outcome in failing.rollouts()] == [None, None]
