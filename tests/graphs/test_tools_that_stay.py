"""Ordinary tools beside the experts: experts fade, tools remain."""

import json
import os
import sys
from pathlib import Path

import pytest
from langchain_core.tools import tool

from eapo_agents.errors import RecipeError, UsageError
from eapo_agents.policy.scripted import ScriptedEngine
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.recipe_file import load_recipe
from eapo_agents.tools import make_tools, use_tool
from eapo_agents.types import ConsultationStatus, Problem, Role, RolloutGroup, StopReason
from graphs.agent import Agent, make_pool
from graphs.fill import run_to_end
from graphs.rollout import Rollouts
from trainers.run import objective_of

GIVEN = (
    "train.report_to=[]",
    "sampling.max_new_tokens=400",
    "consult.turns={start: 4, end: 4}",
)
PROBLEM = Problem(id="p", question="What is 7 + 3 * 4?", answer="19", grader="number")
WORK_OUT = format_call("calculator", {"expression": "3 * 4"})
ASK = format_call("solver", {"query": "7 + 12"})
ON = ("tools=[calculator]", "consult.acceptance={kind: constant}", "consult.solo_share=0.5")


@pytest.fixture
def agent_of(renderer):
    def make(script, *settings):
        shown = []

        def write(key, prompt):
            shown.append(prompt)
            return script(key, prompt)

        given = (
            "train.report_to=[]",
            "sampling.max_new_tokens=400",
            "consult.turns={start: 4, end: 4}",
            *settings,
        )
        recipe = load_recipe("cpu-smol", given)
        pool = make_pool(recipe)
        agent = Agent(
            recipe=recipe,
            loaded=None,
            renderer=renderer,
            engine=ScriptedEngine(renderer, write),
            pool=pool,
            tools=make_tools(recipe.tools, [tool.name for tool in pool.tools]),
        )
        return agent, shown

    return make


def group_of(agent, graph=None, num_rollouts=2):
    policy = agent.policy(agent.sampling)
    rollouts = Rollouts(
        graph=graph(policy) if graph else agent.graph(policy),
        solo_graph=agent.solo_half(policy),
        policy=policy,
        system_prompt=agent.recipe.task.system_prompt,
        seed=0,
        global_step=1,
        assistance=agent.assistance,
    )
    plan = rollouts.plan(PROBLEM, num_rollouts, run_id="", key="")

    async def run():
        ended = []
        for rollout in plan.rollouts:
            ended.append(await rollouts.run(plan, rollout, ended))
        return RolloutGroup(problem=PROBLEM, trajectories_G=tuple(ended))

    return run_to_end(run())


def works_it_out(key, prompt):
    """Use the calculator, then ask where somebody can be asked, then answer."""
    if key.turn == 0:
        return WORK_OUT
    if key.turn == 1 and "- solver(" in prompt:
        return ASK
    return "7 + 12 = 19. Answer: 19"


def test_rollouts_with_and_without_experts_use_the_same_tools(agent_of):
    agent, shown = agent_of(works_it_out, *ON)
    solo, helped = group_of(agent).trajectories_G
    assert [(t.role, len(t.turns), t.correct) for t in (solo, helped)] == [
        (Role.SOLO, 2, True),
        (Role.CONSULT, 3, True),
    ]
    assert ["- calculator(" in prompt for prompt in shown] == [True] * 5
    assert ["- solver(" in prompt for prompt in shown] == [False] * 2 + [True] * 3
    # no coin and no ledger row: what it said is in the tokens of the next turn
    assert solo.turns[0].consultations == () == helped.turns[0].consultations
    assert "12" in agent.renderer.tokenizer.decode(list(solo.turns[1].context_ids))
    assert [c.status for c in helped.turns[1].consultations] == [ConsultationStatus.ACCEPTED]
    assert [row.expert for _, row in agent.pool.store.rows()] == ["solver"]


def test_hint_stripped_rows_keep_what_the_tools_said_and_drop_what_experts_said(agent_of):
    agent, _ = agent_of(works_it_out, *ON)
    group = group_of(agent)
    solo, helped = group.trajectories_G
    (row,) = objective_of(agent).likelihood_rows([group])
    assert tuple(agent.solo_prompt(PROBLEM)) == solo.turns[0].context_ids
    # exactly what the engine saw in the rollout without experts
    assert row.prompt_ids == (
        *solo.turns[0].context_ids,
        *solo.turns[0].completion_ids,
        *solo.turns[1].context_ids,
    )
    assert row.completion_ids_T == helped.turns[-1].completion_ids


def test_a_turn_that_calls_an_expert_and_a_tool_gives_no_hint_stripped_row(agent_of):
    script = ["Answer: 19" if n else WORK_OUT + ASK for n in range(2)]
    agent, _ = agent_of(lambda key, prompt: script[min(key.turn, 1)], *ON)
    group = group_of(agent)
    solo, helped = group.trajectories_G
    assert [c.slot for c in helped.turns[0].consultations] == [1]
    said = agent.renderer.tokenizer.decode(list(solo.turns[1].context_ids))
    assert "There is no such tool. You can call: calculator." in said
    assert objective_of(agent).likelihood_rows([group]) == []


def test_tools_do_not_count_as_queries_and_turns_end_a_policy_that_goes_on_calling(agent_of):
    agent, _ = agent_of(lambda key, prompt: WORK_OUT + WORK_OUT + ASK, *ON, "consult.max_queries=1")
    solo, helped = group_of(agent).trajectories_G
    assert {solo.stop_reason, helped.stop_reason} == {StopReason.TURN_BUDGET}
    assert len(solo.turns) == len(helped.turns) == 4
    first = helped.turns[0].consultations
    assert [(c.slot, c.status) for c in first] == [(2, ConsultationStatus.ACCEPTED)]


def test_an_evaluation_without_experts_has_the_tools(agent_of):
    agent, shown = agent_of(works_it_out, *ON)
    (found, _) = group_of(agent, agent.evaluated_graph).trajectories_G
    assert (len(found.turns), found.correct) == (2, True)
    assert not any("- solver(" in prompt for prompt in shown)


BUILDS = """
from langchain.agents import create_agent
got = []
def build(policy, tools):
    got.append([tool.name for tool in tools])
    return create_agent(policy, tools)
def alone(policy):
    return create_agent(policy, [])
"""


def test_a_graph_of_ones_own_gets_them_beside_the_experts(agent_of, tmp_path, monkeypatch):
    pytest.importorskip("langchain")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_builder.py").write_text(BUILDS)
    agent, _ = agent_of(works_it_out, "graph=own_builder:build", "tools=[calculator]", *UNUSED)
    policy = agent.policy(agent.sampling)
    agent.graph(policy)
    agent.solo_graph(policy)
    assert sys.modules["own_builder"].got == [["solver", "calculator"], ["calculator"]]
    agent.recipe = agent.recipe.model_copy(update={"graph": "own_builder:alone"})
    with pytest.raises(UsageError, match="names tools, and the graph 'own_builder:alone' takes"):
        agent.graph(policy)


UNUSED = ("consult.turns={start: 3, end: 3}",)


@tool
def doubled(number: int) -> str:
    """Double a number."""
    return str(2 * number)


def silent(number):
    return number


def failing(text: str) -> str:
    """Fail."""
    raise ValueError(f"no {text}")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("doubled", {"number": 4}, "8"),
        ("doubled", {"number": "x"}, "takes these arguments: number."),
        ("failing", {"text": "x"}, "failing failed: ValueError: no x"),
        ("calculator", {"expression": "(1 + 2) / 4"}, "3/4"),
        ("calculator", {"expression": "os"}, "Only numbers with + - * /"),
        ("other", {}, "There is no such tool. You can call: doubled, failing, calculator."),
    ],
)
async def test_a_tool_replies_or_says_what_is_wrong(name, arguments, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_tools", sys.modules[__name__])
    tools = make_tools(["own_tools:doubled", "own_tools:failing", "calculator"])
    call = {"name": name, "args": arguments, "id": "1", "type": "tool_call"}
    assert says in (await use_tool(tools, call)).text


async def test_programs_run_in_the_sandbox_and_say_what_they_print(needs_sandbox):
    tools = make_tools(["python"])
    for code, says in (
        ("x = 3\nprint(x * 2)\nx ** 2", "6\n9\n"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("import os; os._exit(0)", "did not run to its end"),
        ("print('\\ud800')", "?"),
    ):
        call = {"name": "python", "args": {"code": code}, "id": "1", "type": "tool_call"}
        assert says in (await use_tool(tools, call)).text


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["calculater"], "Did you mean 'calculator'"),
        (["own_tools:silent"], "must be a LangChain tool, a function with a docstring"),
        (["own_tools:PROBLEM"], "must be a LangChain tool"),
        (["calculator", "calculator"], "two are called 'calculator'"),
        (["own_tools:doubled"], None),
    ],
)
def test_names_that_are_no_tools_are_refused(names, says, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_tools", sys.modules[__name__])
    if says is None:
        with pytest.raises(UsageError, match="two are called 'doubled'"):
            make_tools(names, ["doubled"])
        return
    with pytest.raises(UsageError, match=says):
        make_tools(names)


def test_tools_without_effect_are_refused_and_turns_belong_to_them_too():
    with pytest.raises(RecipeError, match="'tools' has no effect"):
        load_recipe("cpu-smol", ["graph=workflow", "tools=[calculator]"])
    recipe = load_recipe("cpu-smol", ["graph=solo", "tools=[calculator]", "consult.turns.start=5"])
    assert recipe.consult.turns.start == 5


MCP_SERVER = str(Path(__file__).parents[1] / "experts" / "mcp_server.py")


def mcp_setting(**more):
    return f"tools={json.dumps([{'command': sys.executable, 'args': [MCP_SERVER], **more}])}"


def test_tools_of_an_mcp_server_stay_in_training_and_in_evaluation(agent_of, monkeypatch):
    def adds(key, prompt):
        if key.turn == 0:
            return format_call("add", {"a": 7, "b": 12})
        return "Answer: 19"

    agent, shown = agent_of(adds, mcp_setting(only=["add"]), *ON[1:])
    evaluated = group_of(agent, agent.evaluated_graph, 1).trajectories_G
    for trajectory in (*group_of(agent).trajectories_G, *evaluated):
        assert (trajectory.stop_reason, len(trajectory.turns)) == (StopReason.ANSWERED, 2)
        said = agent.renderer.tokenizer.decode(list(trajectory.turns[1].context_ids))
        assert "19" in said
    assert all("- add(" in prompt and "whoami" not in prompt for prompt in shown)

    # the command gets the variables that are named, and no others
    monkeypatch.setenv("WANTED", "sk-wanted")
    monkeypatch.setenv("UNWANTED", "sk-unwanted")
    recipe = load_recipe("cpu-smol", [*GIVEN, mcp_setting(env=["WANTED"])])
    tools = make_tools(recipe.tools)
    assert [tool.name for tool in tools] == ["add", "whoami"]

    def call(name, args):
        return run_to_end(
            use_tool(tools, {"name": name, "args": args, "id": "c", "type": "tool_call"})
        )

    told = call("whoami", {}).text.split()
    assert "WANTED" in told
    assert "UNWANTED" not in told
    assert "validation error" in call("add", {"a": "x", "b": 12}).text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"only": ["subtract"]}, "has no tool 'subtract': it has add, whoami"),
        ({"command": "/nonexistent/server"}, "does not answer"),
        ({"env": ["NOT_SET_ANYWHERE"]}, "NOT_SET_ANYWHERE"),
    ],
)
def test_an_mcp_server_that_cannot_be_used_is_one_sentence(given, said):
    assert "NOT_SET_ANYWHERE" not in os.environ
    recipe = load_recipe("cpu-smol", [*GIVEN, mcp_setting(**given)])
    with pytest.raises(UsageError, match=said):
        make_tools(recipe.tools)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("[{comand: x}]", "no key 'tools.0.mcp.comand': did you mean 'command'"),
        ("[{}]", "needs either command or url"),
        ("[{url: x, api_key: sk}]", "did you mean 'api_key_env'"),
        ("[{url: x, args: [a]}]", "args and env are a command's"),
    ],
)
def test_a_recipe_that_describes_an_mcp_server_wrongly_is_refused(given, said):
    with pytest.raises(RecipeError, match=said):
        load_recipe("cpu-smol", [*GIVEN, f"tools={given}"])
