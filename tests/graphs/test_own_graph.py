"""A user's own LangGraph agent: it rewrites its history and has a sub-agent. Traced with the real
policy, and trained on."""

import asyncio
import json
import runpy
from pathlib import Path

import pytest
from langgraph.graph import START, MessagesState, StateGraph

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.store import TraceStore
from eapo_agents.types import PolicyVersion, Problem, Sampling
from graphs.collect import trace
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.doctor import examine
from trainers.rows import trajectory_rows
from trainers.run import train_traced

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own_graph.py"
WORDS = "The answer is that it is a number and you can see what it is: 0 1 2 3 4 5 6 i to of in for"


@pytest.fixture(scope="session")
def loaded_policy(loaded_shallow_policy):
    return loaded_shallow_policy


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def problems():
    """The reward is the F1 of the words, so that it differs from rollout to rollout."""
    return [
        Problem(id=str(n), question=f"What is {n} + {n}?", answer=WORDS, grader="f1")
        for n in range(4)
    ]


def answer_of(state) -> str:
    return f"Answer: {state['messages'][-1].text}"


def test_it_is_traced_whole_and_trained_on_for_two_steps(agent, example, problems, tmp_path):
    graph = example["build"](agent.policy(agent.sampling))
    options = {"run_id": "own", "inputs": example["question_of"], "answer_of": answer_of}
    agent.recipe = agent.recipe.model_copy(
        update={"collect": agent.recipe.collect.model_copy(update={"num_generations": 2})}
    )
    before = agent.engine.policy_version
    with TraceStore.open(tmp_path / "traces.db", create=True) as store:
        assert trace(agent, graph, problems, store, **options) == 8
        assert trace(agent, graph, problems, store, **options) == 0
        groups = list(store.groups("own"))
        report = examine(groups)
        assert report.blocking == []
        assert report.num_several_rows == 8
        for trajectory in (t for group in groups for t in group.trajectories_G):
            attempt, check, answer = trajectory.turns
            assert {attempt.parent, check.parent, answer.parent} == {None}
            # nothing was repaired: what the summary says of the try is context, and not trained
            summary = agent.renderer.tokenizer.decode(answer.context_ids)
            assert attempt.text.strip()[:20] in summary
            rows = trajectory_rows(trajectory, advantage=1.0)
            assert len(rows) == 3
            assert sum(row.weight for row in rows) == pytest.approx(1.0)
            assert sum(row.num_trained for row in rows) == sum(
                len(turn.completion_ids) for turn in trajectory.turns
            )
        texts = {t.turns[0].text for t in groups[0].trajectories_G}
        assert len(texts) == 2  # each rollout has random numbers of its own
        folder = train_traced(agent, store, "own", tmp_path / "run")
    after = agent.engine.policy_version
    assert after.step - before.step == 2
    assert after.weights != before.weights
    assert (folder / "adapter_config.json").exists()


def test_the_same_seed_gives_the_same_traces(agent, example, problems, tmp_path):
    graph = example["build"](agent.policy(agent.sampling))

    def tokens(at):
        with TraceStore.open(tmp_path / at, create=True) as store:
            options = {"run_id": "own", "inputs": example["question_of"]}
            trace(agent, graph, problems[:1], store, **options)
            (group,) = store.groups("own")
            return [[t.completion_ids for t in x.turns] for x in group.trajectories_G]

    assert tokens("one.db") == tokens("two.db")


def test_tracing_and_training_take_at_most_six_lines():
    main = EXAMPLE.read_text().split("def main(")[1].split("if __name__")[0]
    lines = [line.strip() for line in main.splitlines()[1:] if line.strip()]
    assert len([line for line in lines if not line.startswith(("from", "import"))]) <= 6


def test_a_graph_that_never_calls_the_policy_or_fails_is_an_error_on_the_trajectory(
    agent, problems, tmp_path
):
    from langgraph.graph import START, MessagesState, StateGraph

    def silent(state):
        return {"messages": []}

    def broken(state):
        raise RuntimeError(json.dumps({"no": "luck"}))

    for node, says in ((silent, "never called the policy"), (broken, "luck")):
        graph = StateGraph(MessagesState).add_node("n", node).add_edge(START, "n").compile()
        with TraceStore.open(tmp_path / f"{says[:4]}.db", create=True) as store:
            trace(agent, graph, problems[:1], store, run_id="own")
            assert all(says in s.trajectory.error for s in store.trajectories())
            assert all(s.trajectory.reward is None for s in store.trajectories())


class NewWeightsEachTurn(ScriptedEngine):
    """As servers that get new weights while a rollout is on its way."""

    step = 0

    @property
    def policy_version(self) -> PolicyVersion:
        self.step += 1
        return PolicyVersion(model="m", base="b", weights=f"w{self.step}", step=self.step)


@pytest.mark.parametrize("allowed", [False, True])
def test_weights_that_change_in_a_rollout_are_recorded_or_refused(
    renderer, problems, tmp_path, allowed
):
    async def speak(state):
        return {"messages": [await policy.ainvoke(state["messages"])]}

    engine = NewWeightsEachTurn(renderer, lambda key, prompt: f"turn {key.turn}")
    policy = PolicyChatModel(
        engine=engine, renderer=renderer, sampling=Sampling(), allow_midrollout_updates=allowed
    )
    graph = StateGraph(MessagesState).add_node("one", speak).add_node("two", speak)
    graph = graph.add_edge(START, "one").add_edge("one", "two").compile()
    plan = RolloutPlan(problem=problems[0], rollouts=range(1))
    run = run_rollouts(graph, policy, [plan], system_prompt="", seed=0)
    (found,) = asyncio.run(run)[0].trajectories_G
    if not allowed:
        assert "The weights changed in the middle of a trajectory" in found.error
        assert "policy.allow_midrollout_updates=true" in found.error
        return
    first, second = found.turns
    assert found.error is None
    assert first.policy is None, "the trajectory's own"
    assert second.policy.step > found.policy.step
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        store.start_run("r", kind="collect", recipe={}, sampling=Sampling(), policy=found.policy)
        store.append(found, run_id="r", group_key="g")
        assert next(store.trajectories()).trajectory == found
