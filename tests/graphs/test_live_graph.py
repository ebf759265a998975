"""A user's graph in the place of ours: with experts and without, in groups, conversations and
training. Real graphs, a scripted policy or a tiny real one."""

import dataclasses
import sys
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from eapo_agents.cli.turns import conversation
from eapo_agents.errors import RecipeError, TraceError, UsageError
from eapo_agents.experts.consulting import UNAVAILABLE
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe_file import load_recipe
from eapo_agents.store import TraceStore
from eapo_agents.types import Role, RolloutGroup, StopReason
from graphs.agent import Agent, load_agent, make_pool
from graphs.collect import trace
from graphs.events import Ended, PersonAsked
from graphs.fill import run_to_end
from graphs.rollout import Rollouts
from trainers.run import objective_of, usable_groups

ASK = format_call("solver", {"query": "7 + 3 * 4"})
SEARCH = format_call("search", {"query": "q"})
OFFERS = "Experts you can ask"


@pytest.fixture(autouse=True)
def own(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield
    sys.modules.pop("own_agents", None)


@pytest.fixture
def agent_of(renderer):
    """agent_of(script, *settings) -> an agent of a user's graph whose policy is scripted."""

    def make(script, *settings, graph="build"):
        shown = []

        def write(key, prompt):
            shown.append(prompt)
            return script(key, prompt)

        settings = ("train.report_to=[]", f"graph=own_agents:{graph}", *settings)
        recipe = load_recipe("cpu-smol", settings)
        agent = Agent(
            recipe=recipe,
            loaded=None,
            renderer=renderer,
            engine=ScriptedEngine(renderer, write),
            pool=make_pool(recipe),
        )
        return agent, shown

    return make


def asks_if_it_can(key, prompt):
    if OFFERS not in prompt:
        return "Answer: 19" if key.rollout == 0 else "Answer: 8"
    if key.turn == 0:
        return ASK
    return "Answer: 8" if UNAVAILABLE in prompt else "Answer: 19"


def group_of(agent, problem, num_rollouts=4):
    policy = agent.policy(agent.sampling)
    rollouts = Rollouts(
        graph=agent.graph(policy),
        solo_graph=agent.solo_half(policy),
        policy=policy,
        system_prompt=agent.recipe.task.system_prompt,
        seed=0,
        global_step=1,
        assistance=agent.assistance,
        inputs=agent.inputs,
        answer_of=agent.answer_of,
    )
    plan = rollouts.plan(problem, num_rollouts, run_id="", key="")

    async def run():
        ended = []
        for rollout in plan.rollouts:
            ended.append(await rollouts.run(plan, rollout, ended))
        return RolloutGroup(problem=problem, trajectories_G=tuple(ended))

    return run_to_end(run())


def test_the_first_half_of_a_group_runs_the_same_builder_without_experts(agent_of, problem):
    agent, shown = agent_of(
        asks_if_it_can, "consult.solo_share=0.5", "consult.acceptance.kind=adaptive"
    )
    group = group_of(agent, problem)
    roles = [t.role for t in group.trajectories_G]
    assert roles == [Role.SOLO, Role.SOLO, Role.OWN, Role.OWN]
    assert [OFFERS in prompt for prompt in shown] == [False] * 2 + [True] * 4
    rhos = [c.rho for t in group.trajectories_G for turn in t.turns for c in turn.consultations]
    # start 0.8, and one of the two solo rollouts is right, for a target of 0.7
    assert rhos == [pytest.approx(0.8 * (1 - 0.5 / 0.7))] * 2


def test_the_schedule_of_the_recipe_holds_for_the_tools_of_a_user_s_graph(agent_of, problem):
    agent, _ = agent_of(asks_if_it_can, "consult.acceptance.kind=never", "consult.max_queries=1")
    (found,) = group_of(agent, problem, 1).trajectories_G
    (consultation,) = found.turns[0].consultations
    assert consultation.status == "withheld"
    policy = agent.policy(agent.sampling)
    limits = {tool._max_queries for tool in agent.pool.tools_under(max_queries=1)}
    assert limits == {1}
    assert agent.graph(policy).name == agent.solo_graph(policy).name == "agent"


def test_a_user_may_name_the_graph_without_experts(agent_of, problem):
    agent, _ = agent_of(
        asks_if_it_can, "consult.solo_share=0.5", "solo_graph=own_agents:alone", graph="searching"
    )
    names = [t.graph for t in group_of(agent, problem, 2).trajectories_G]
    assert names == ["alone", "searching"]
    assert agent.evaluated_graph(agent.policy(agent.sampling)).name == "alone"


def test_a_graph_that_is_the_same_with_and_without_experts_has_no_solo_rollouts(agent_of, problem):
    agent, _ = agent_of(asks_if_it_can, "consult.solo_share=0.5", graph="alone")
    with pytest.raises(UsageError, match=r"takes no experts .* name a solo_graph"):
        group_of(agent, problem)
    agent, _ = agent_of(asks_if_it_can, "consult.solo_share=0.5")
    policy = agent.policy(agent.sampling)
    with pytest.raises(UsageError, match="no variant without them: give a solo_graph"):
        Rollouts(
            graph=agent.graph(policy),
            policy=policy,
            system_prompt="",
            seed=0,
            assistance=agent.assistance,
        )


@pytest.mark.parametrize("name", ["consult", "solo", "expert", "chat"])
def test_a_graph_s_name_says_nothing_about_its_role(agent_of, problem, name):
    agent, _ = agent_of(asks_if_it_can, f"graph_options.name={name}")
    (found,) = group_of(agent, problem, 1).trajectories_G
    assert (found.role, found.graph) == (Role.OWN, name)


@pytest.mark.parametrize("graph", ["needy", "needy_dict"])
def test_a_context_that_nobody_can_make_is_refused_before_anything_runs(agent_of, graph):
    agent, _ = agent_of(asks_if_it_can, graph=graph)
    with pytest.raises(UsageError, match=r"context_schema, Needy.*user.*give each of its fields"):
        agent.graph(agent.policy(agent.sampling))


def test_a_policy_that_never_stops_asking_is_data_and_gets_no_reward(agent_of, problem):
    agent, _ = agent_of(lambda key, prompt: ASK, graph="short")
    (found,) = group_of(agent, problem, 1).trajectories_G
    assert (found.stop_reason, found.error) == (StopReason.TURN_BUDGET, None)
    assert (found.answer, found.reward, len(found.turns)) == (None, 0.0, 2)
    assert [len(turn.consultations) for turn in found.turns] == [1, 1]


def test_inputs_come_from_the_problem_and_the_answer_from_the_final_state(agent_of, problem):
    settings = ["inputs=own_agents:with_hint", "answer_of=own_agents:in_capitals"]
    agent, shown = agent_of(lambda key, prompt: "so: 19", *settings)
    (found,) = group_of(agent, problem, 1).trajectories_G
    assert "Hint: 7 + 3 * 4" in shown[0]
    assert found.answer == "SO: 19"
    assert "Hint: 7 + 3 * 4" in agent.renderer.tokenizer.decode(agent.solo_prompt(problem))
    agent, _ = agent_of(lambda key, prompt: "19", "answer_of=own_agents:as_number")
    (found,) = group_of(agent, problem, 1).trajectories_G
    assert "answer_of must return a text or None, and it returned a int" in found.error


def test_a_problem_that_inputs_cannot_use_is_a_failed_rollout_and_the_others_go_on(
    agent_of, problem
):
    agent, _ = agent_of(lambda key, prompt: "19", "inputs=own_agents:needs_year")
    (failed,) = group_of(agent, problem, 1).trajectories_G
    assert (failed.stop_reason, failed.reward) == (StopReason.ERROR, None)
    assert "KeyError: 'year'" in failed.error
    dated = dataclasses.replace(problem, metadata={"year": "In 2026?"})
    assert group_of(agent, dated, 1).trajectories_G[0].answer == "19"


def test_a_state_of_ones_own_may_mean_something_else_by_stop_reason(agent_of, problem):
    agent, _ = agent_of(lambda key, prompt: "19", graph="stop_reasons")
    (found,) = group_of(agent, problem, 1).trajectories_G
    assert (found.stop_reason, found.answer) == (StopReason.ANSWERED, "19")


def test_hint_stripped_rows_stand_behind_the_prompt_that_the_graph_without_experts_shows(
    agent_of, problem
):
    """With a search that stays: its call and what it found stay in the row."""

    def script(key, prompt):
        if key.turn == 0:
            return SEARCH
        return ASK if key.turn == 1 and "solver" in prompt else "It is 19"

    always = "consult.acceptance.kind=constant", "consult.acceptance.start=1"
    agent, _ = agent_of(script, "consult.solo_share=0.5", *always, graph="searching")
    group = group_of(agent, problem, 2)
    solo, helped = group.trajectories_G
    assert [len(t.turns) for t in (solo, helped)] == [2, 3]
    right = dataclasses.replace(
        group, trajectories_G=(solo, dataclasses.replace(helped, correct=True))
    )
    (row,) = objective_of(agent).likelihood_rows([right])
    # exactly what the engine saw in the rollout without experts
    assert (
        row.prompt_ids
        == tuple(
            token
            for part in (solo.turns[0].context_ids, solo.turns[0].completion_ids)
            for token in part
        )
        + solo.turns[1].context_ids
    )
    assert row.completion_ids_T == helped.turns[-1].completion_ids


def test_rows_behind_a_prompt_need_the_recipe_to_name_the_graph(agent_of, problem, tmp_path):
    agent, _ = agent_of(asks_if_it_can, "collect.num_generations=1", "collect.problems=1")
    graph = agent.graph(agent.policy(agent.sampling))
    agent.recipe = load_recipe("cpu-smol", ["train.report_to=[]"])
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        trace(agent, graph, [problem], store, run_id="own")
        groups = [
            dataclasses.replace(
                group,
                trajectories_G=tuple(
                    dataclasses.replace(
                        t,
                        turns=tuple(
                            dataclasses.replace(turn, logprobs=(-0.1,) * len(turn.completion_ids))
                            for turn in t.turns
                        ),
                    )
                    for t in group.trajectories_G
                ),
            )
            for group in store.groups("own")
        ]
    with pytest.raises(TraceError, match=r"traces are of the graph 'agent'.*name that graph"):
        usable_groups(agent, groups)


def test_a_function_is_given_to_a_recipe_as_it_is():
    import own_agents

    recipe = load_recipe("cpu-smol", graph=own_agents.build, inputs=own_agents.with_hint)
    assert (recipe.graph, recipe.inputs) == ("own_agents:build", "own_agents:with_hint")
    with pytest.raises(UsageError, match="define it at the top of a module"):
        load_recipe("cpu-smol", graph=lambda policy: None)


@pytest.mark.parametrize("text", ["graph=own_agents:nothing", "inputs=own_agents:nothing"])
def test_a_function_that_is_not_there_is_told_before_the_model_is_loaded(text):
    recipe = load_recipe("cpu-smol", ["graph=own_agents:build", text])
    with pytest.raises(UsageError, match="has no 'nothing'"):
        load_agent(recipe)


def test_an_expert_s_text_is_no_answer_where_the_answer_is_more_than_text():
    settings = ["graph=own_agents:build", "answer_of=own_agents:in_capitals"]
    with pytest.raises(RecipeError, match="an expert's text is learned from by"):
        load_recipe("cpu-smol", [*settings, "train.method=distillation"])


async def test_a_conversation_with_a_user_s_graph_asks_ends_and_is_rated(agent_of):
    agent, shown = agent_of(asks_if_it_can, "consult.acceptance.kind=never")
    talk = conversation(agent, InMemorySaver(), "t")
    events = [event async for event in talk.ask("What is 7 + 3 * 4?")]
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert (ended.answer, ended.stop_reason, ended.turns) == ("Answer: 19", "answered", 2)
    rated = await talk.trajectory(1.0)
    assert (rated.role, rated.graph) == (Role.OWN, "agent")
    assert rated.turns[0].consultations[0].reply.endswith("19.")
    talk.solo = True
    events = [event async for event in talk.ask("And what is 7 + 3 * 5?")]
    assert OFFERS not in shown[-1]
    assert events[-1].turns == 1


async def test_a_graph_s_own_question_to_a_person_is_asked_and_replied_to(agent_of):
    agent, shown = agent_of(lambda key, prompt: "Answer: 19", graph="approving")
    talk = conversation(agent, InMemorySaver(), "t")
    events = [event async for event in talk.ask("What is 7 + 3 * 4?")]
    asked = events[-1]
    assert isinstance(asked, PersonAsked)
    assert (asked.expert, asked.query) == ("the graph", '{"approve": "answer?"}')
    events = [event async for event in talk.reply({asked.id: '{"yes": 1}'})]
    assert events[-1].answer == "Answer: 19"
    assert "approved: {'yes': 1}" in shown[-1]
