"""Arms that learn from what an expert wrote: completed distillation, and RL after distillation."""

import dataclasses

import pytest

from eapo_agents.types import Problem, Role
from trainers.likelihood import completed, worked_answer

FORM = "Answer: {answer}"
WORKED = "3 * 4 = 12. 7 + 12 = 19."


@pytest.fixture
def with_solution(problem) -> Problem:
    return dataclasses.replace(problem, metadata={**problem.metadata, "solution": WORKED})


def test_a_reply_that_is_only_a_part_is_followed_by_the_solution_or_the_gold_answer(
    problem, with_solution
):
    rule = "First the product."
    assert completed(rule, with_solution, FORM, by="solution") == f"{rule} {WORKED} Answer: 19"
    assert completed(rule, with_solution, FORM, by="answer") == f"{rule} Answer: 19"
    assert completed(rule, problem, FORM, by="solution") == f"{rule} Answer: 19"
    assert worked_answer(problem, FORM) == "Answer: 19"


def test_the_beginning_of_a_solution_is_not_said_twice(with_solution):
    for beginning in ("3 * 4 = 12.", "3 * 4 = 12.\n", ""):
        assert completed(beginning, with_solution, FORM, by="solution") == f"{WORKED} Answer: 19"


def test_a_right_reply_stays_and_one_with_a_wrong_answer_is_not_made_right(with_solution):
    for reply in (WORKED, f"{WORKED} Answer: 19"):
        assert completed(reply, with_solution, FORM, by="solution") == f"{WORKED} Answer: 19"
    assert completed("Answer: 20", with_solution, FORM, by="answer") == "Answer: 20"


RULE = "consult.experts.solver={kind: scripted, options: {default: 'First the product.'}}"


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        (["train.complete_replies=answer"], "First the product. Answer: {answer}"),
        ([], "First the product. {worked} Answer: {answer}"),
        (["train.complete_replies=none"], "First the product."),
    ],
)
def test_what_is_imitated_of_a_rule(agent_of, live, eight_problems, tmp_path, settings, written):
    agent = agent_of("train.steps=1", RULE, *settings, arm="distillation-completed")
    problems = [
        dataclasses.replace(p, metadata={**p.metadata, "solution": f"It is {p.answer}."})
        for p in eight_problems
    ]
    (told,), trajectories = live(agent, problems, tmp_path)
    wanted = [
        written.format(answer=t.problem.answer, worked=f"It is {t.problem.answer}.")
        for t in trajectories
    ]
    assert [t.answer for t in trajectories] == wanted
    assert told["accuracy"] == ("Answer" in written)
    assert told["experts/calls"] == 4


def test_supervised_training_then_rl_is_one_run_that_continues_in_either_part(
    agent_of, live, eight_problems, tmp_path
):
    curves = []
    for cuts in ((), (1, 3)):  # at once, and cut off in each part
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        told = []
        for until in (*cuts, None):
            agent = agent_of(
                "train.distillation_share=0.5",
                "train.steps=4",
                "train.expert_calls=4",
                "train.learning_rate=1e-2",
                "train.skip_settled=1.0",
                arm="supervised-then-rl",
            )
            more, trajectories = live(agent, eight_problems, folder, until)
            told += more
        assert [m["experts/calls"] for m in told] == [4, 0, 0, 0]
        assert [m["rollouts"] for m in told] == [4, 4, 16, 16]
        assert [m["sampled_tokens"] > 0 for m in told] == [False] * 2 + [True] * 2
        assert len(list(agent.pool.store.rows())) == 4
        roles = [t.role for t in trajectories]
        assert (roles.count(Role.EXPERT), roles.count(Role.SOLO)) == (4, 32)
        curves.append(
            sorted(
                (t.global_step, t.problem.id, t.rollout, t.policy.weights, str(t.answer))
                for t in trajectories
            )
        )
    assert curves[0] == curves[1]
