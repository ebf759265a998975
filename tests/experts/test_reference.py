"""Help from the data: a problem's own solution, whole or in part; the problem with the query."""

import asyncio
from dataclasses import replace

import pytest
from langchain_core.tools import StructuredTool

from eapo_agents.errors import RecipeError, UsageError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.experts.expert import Expert
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.experts.reference import refuse_unknown_field
from eapo_agents.types import Problem

STEPS = ["There are 3.5 boxes.", "Each has 4 apples. ", "3.5 * 4 = 14.", "Answer: 14"]
PROBLEM = Problem(
    id="p1",
    question="How many apples?",
    answer="14",
    grader="number",
    metadata={"solution": " ".join(STEPS), "hint": "Multiply."},
)


def ask(options, problem=PROBLEM, step=0):
    pool = ExpertPool([make_expert("reference", name="book", options=options)])
    who = Consulting(problem=problem, global_step=step)

    async def in_a_rollout():
        if problem is None:
            return await pool.ask("book", {"query": "help"}, CallSite())
        with consulting(who):
            return await pool.ask("book", {"query": "help"}, CallSite())

    return asyncio.run(in_a_rollout())


@pytest.mark.parametrize(
    ("options", "step", "reply"),
    [
        ({}, 0, " ".join(STEPS)),
        ({"field": "hint"}, 0, "Multiply."),
        ({"part": 0.25}, 0, "There are 3.5 boxes."),
        ({"part": 0.5}, 0, "There are 3.5 boxes.\nEach has 4 apples."),
        # a step with the answer is not given, however large the part
        ({"part": 0.99}, 0, "There are 3.5 boxes.\nEach has 4 apples."),
        ({"end": 0.25, "steps": 10}, 0, " ".join(STEPS)),
        ({"end": 0.25, "steps": 10}, 5, "There are 3.5 boxes.\nEach has 4 apples."),
        ({"end": 0.25, "steps": 10}, 99, "There are 3.5 boxes."),
    ],
)
def test_a_solution_is_given_whole_or_by_its_first_steps(options, step, reply):
    answer = ask(options, step=step)
    assert (answer.accepted, answer.text) == (True, reply)


@pytest.mark.parametrize(
    ("options", "problem", "says"),
    [
        ({"field": "plan"}, PROBLEM, "has no 'plan'"),
        ({}, None, "knows the problems of a task"),
        ({"part": 0.5}, replace(PROBLEM, metadata={"solution": "14"}), "is its answer"),
        ({"part": 0.5}, replace(PROBLEM, metadata={"solution": "It is 14. So 14."}), "its answer"),
    ],
)
def test_what_it_does_not_know_or_must_not_tell_is_a_failure(options, problem, says):
    answer = ask(options, problem)
    assert not answer.accepted
    assert says in answer.error


@pytest.mark.parametrize(
    ("options", "more", "says"),
    [
        ({"part": 0}, {}, r"in \(0, 1\]"),
        ({"end": 2.0, "steps": 5}, {}, r"in \(0, 1\]"),
        ({"end": 0.5}, {}, "end, and steps"),
        ({}, {"stored": True}, "depend on the problem"),
    ],
)
def test_a_reference_that_cannot_work_is_refused(options, more, says):
    with pytest.raises(UsageError, match=says):
        make_expert("reference", name="book", options=options, **more)


def test_an_expert_may_see_the_problem_and_never_the_gold_answer():
    heard = []

    async def listen(query: str) -> str:
        heard.append(query)
        return "noted"

    wise = StructuredTool.from_function(coroutine=listen, name="wise", description="listens")
    pool = ExpertPool([Expert(tool=wise, sees="problem")])

    async def both():
        with consulting(Consulting(problem=PROBLEM)):
            await pool.ask("wise", {"query": "3.5 * 4?"}, CallSite())
            await pool.ask("wise", {"query": PROBLEM.question}, CallSite())
        await pool.ask("wise", {"query": "alone"}, CallSite())

    asyncio.run(both())
    assert heard == [
        "Problem: How many apples?\n\nQuery: 3.5 * 4?",
        "How many apples?",
        "alone",
    ]
    assert not any(PROBLEM.answer in query for query in heard)


def test_a_field_that_no_problem_has_is_refused_before_anything_runs():
    without = replace(PROBLEM, metadata={"hint": " ", "rule": "x"})
    refuse_unknown_field("book", "reference", {}, [without, PROBLEM])
    refuse_unknown_field("book", "solver", {}, [without])
    noisy = {"of": {"kind": "reference", "options": {"field": "hint"}}}
    refuse_unknown_field("book", "noisy", noisy, [PROBLEM])
    with pytest.raises(RecipeError, match=r"'hint' .* none of the 1 .*they have: hint, rule"):
        refuse_unknown_field("book", "noisy", noisy, [without])
    with pytest.raises(RecipeError, match=r"'book' \(reference\) gives the 'solution'"):
        refuse_unknown_field("book", "reference", {"part": 0.5}, [without])
