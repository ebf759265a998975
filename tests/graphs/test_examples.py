"""The whole examples of docs/examples, and agents as people put them together: `create_agent` with
its middleware. Real graphs, a scripted policy."""

import asyncio
import runpy
from pathlib import Path

import pytest

pytest.importorskip("langchain", reason="the extra `dev` has it")

from langchain.agents import create_agent
from langchain.agents.middleware import (
    ContextEditingMiddleware,
    HumanInTheLoopMiddleware,
    ModelCallLimitMiddleware,
    ModelFallbackMiddleware,
    SummarizationMiddleware,
    ToolCallLimitMiddleware,
)
from langchain.agents.middleware.context_editing import ClearToolUsesEdit
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel

from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import StopReason
from graphs.rollout import run_group

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FADING = runpy.run_path(str(EXAMPLES / "fading_expert.py"))
MAP_REDUCE = runpy.run_path(str(EXAMPLES / "map_reduce.py"))
ASK = format_call("a", {"query": "q"})
SEARCH = format_call("search", {"query": "precedence"})


@pytest.fixture
def tools():
    return ExpertPool([make_expert("scripted", name="a", options={"default": "take 3"})]).tools


def rollout(graph, policy, problem):
    run = run_group(graph, policy, problem, 1, system_prompt="", seed=0)
    return asyncio.run(run).trajectories_G[0]


def statuses(found):
    return [[c.status.value for c in turn.consultations] for turn in found.turns]


def test_an_expert_fades_beside_a_search_that_stays(scripted, tools, problem):
    policy = scripted([SEARCH, ASK, "Answer: 19"])
    found = rollout(FADING["with_search"](policy, tools), policy, problem)
    assert (found.error, found.correct, statuses(found)) == (None, True, [[], ["accepted"], []])
    assert [turn.parent for turn in found.turns] == [None, 0, 1]
    alone = rollout(FADING["with_search"](policy, []), policy, problem)
    # the call is refused by the agent, and the search answers as before
    assert statuses(alone) == [[], [], []]
    forever = scripted([ASK])
    found = rollout(FADING["build"](forever, tools), forever, problem)
    assert (len(found.turns), found.correct) == (FADING["MOST_TURNS"], False)


def test_attempts_of_a_map_reduce_and_its_answer_are_turns_of_one_trajectory(
    scripted, tools, problem
):
    def script(key, prompt):
        if "Attempts:" in prompt:
            return "Answer: 19"
        return "It is 19" if "take 3" in prompt else ASK

    policy = scripted(script)
    found = rollout(MAP_REDUCE["build"](policy, tools, attempts=2), policy, problem)
    assert (found.error, found.correct, found.answer) == (None, True, "Answer: 19")
    assert sorted(map(len, statuses(found))) == [0, 0, 0, 1, 1]
    assert {turn.parent for turn in found.turns} == {None}
    policy = scripted(lambda key, prompt: "Answer: 19")
    assert len(rollout(MAP_REDUCE["build"](policy, [], attempts=2), policy, problem).turns) == 3


class Number(BaseModel):
    value: int


@tool
def search(query: str) -> str:
    """Search."""
    return f"found {query}"


def number(value):
    return format_call("Number", {"value": value})


def summarising(m):
    return SummarizationMiddleware(model=m, trigger=("messages", 4), keep=("messages", 2))


def clearing(m):
    return ContextEditingMiddleware(edits=[ClearToolUsesEdit(trigger=10, keep=0)])


AGENTS = {
    "summarised": (lambda m: {"middleware": [summarising(m)]}, [ASK, SEARCH, "S", "19"], "19"),
    "cleared": (lambda m: {"middleware": [clearing(m)]}, [ASK, SEARCH, "19"], "19"),
    "limited": (
        lambda m: {"middleware": [ToolCallLimitMiddleware(run_limit=1)]},
        [ASK, ASK, "19"],
        "19",
    ),
    "kept": (
        lambda m: {"checkpointer": InMemorySaver(), "store": InMemoryStore()},
        [ASK, "19"],
        "19",
    ),
    "structured": (lambda m: {"response_format": Number}, [ASK, number(19)], '{"value":19}'),
    "corrected": (
        lambda m: {"response_format": Number},
        [number("nineteen"), number(19)],
        '{"value":19}',
    ),
}


@pytest.mark.parametrize("name", AGENTS)
def test_agents_as_people_compile_them_are_traced(scripted, tools, problem, name):
    options, script, answer = AGENTS[name]
    said = iter(script)  # in the order of the calls: middleware calls from a place of its own
    policy = scripted(lambda key, prompt: next(said))
    graph = create_agent(policy, [*tools, search], **options(policy))
    found = rollout(graph, policy, problem)
    assert (found.error, found.answer, len(found.turns)) == (None, answer, len(script))


def test_a_fallback_answers_for_a_policy_that_failed(scripted, tools, problem):
    failures = [RuntimeError("out of memory")]

    def script(key, prompt):
        if failures:
            raise failures.pop()
        return "Answer: 19"

    policy = scripted(script)
    middleware = [ModelFallbackMiddleware(policy)]
    found = rollout(create_agent(policy, tools, middleware=middleware), policy, problem)
    assert (found.answer, len(found.turns)) == ("Answer: 19", 1)


@pytest.mark.parametrize(
    ("middleware", "says"),
    [
        (HumanInTheLoopMiddleware(interrupt_on={"a": True}), "waits for a person"),
        (ModelCallLimitMiddleware(run_limit=1, exit_behavior="error"), "call limits exceeded"),
    ],
)
def test_what_a_rollout_cannot_do_is_its_error(scripted, tools, problem, middleware, says):
    policy = scripted([ASK, "Answer: 19"])
    graph = create_agent(policy, tools, middleware=[middleware], checkpointer=InMemorySaver())
    found = rollout(graph, policy, problem)
    assert found.stop_reason is StopReason.ERROR
    assert says in found.error
    assert found.reward is None
