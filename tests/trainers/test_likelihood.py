"""Replies that stand in for answers which leave out how they were come to."""

import dataclasses

import pytest

from eapo_agents.recipe import InternaliseSection, TrainSection
from eapo_agents.types import Consultation, ConsultationStatus, RolloutGroup, Turn
from trainers.likelihood import StandIn, in_form
from trainers.objective import Objective

WORKED = "3 * 4 = 12. 7 + 12 = 19."


@pytest.fixture
def helped(renderer, trajectory):
    """helped(answer, reply, ...) -> a right trajectory that a reply helped."""

    def make(answer: str, *replies: str, status=ConsultationStatus.ACCEPTED, **changes):
        asked = Turn(
            context_ids=(1,),
            completion_ids=(5, 2),
            logprobs=(-0.5, -0.5),
            parent=None,
            text="",
            finish_reason="stop",
            consultations=tuple(
                Consultation(slot=i, expert="e", query="q", reply=reply, status=status, rho=1, u=0)
                for i, reply in enumerate(replies)
            ),
        )
        ids = (*renderer.encode_text(answer), renderer.end_of_turn_id)
        answered = dataclasses.replace(
            asked,
            completion_ids=ids,
            logprobs=(-0.1,) * len(ids),
            parent=0,
            text=answer,
            consultations=(),
        )
        return trajectory((asked, answered), **changes)

    return make


def stand_in(renderer, min_answer_to_reply_ratio: float) -> StandIn:
    return StandIn(
        renderer=renderer,
        answer_form="Answer: {answer}",
        min_answer_to_reply_ratio=min_answer_to_reply_ratio,
    )


def test_a_reply_stands_in_for_an_answer_that_leaves_the_steps_out(renderer, helped):
    ids = stand_in(renderer, 0.5)(helped("19. Answer: 19", WORKED))
    assert ids is not None
    assert renderer.tokenizer.decode(ids[:-1]) == f"{WORKED} Answer: 19"
    assert ids[-1] == renderer.end_of_turn_id


@pytest.mark.parametrize(
    ("answer", "replies", "min_answer_to_reply_ratio", "why"),
    [
        (f"{WORKED} Answer: 19", (WORKED,), 0.5, "the answer has the steps"),
        ("19. Answer: 19", (WORKED,), 0.0, "nobody wants it"),
        ("19. Answer: 19", ("3 * 4 = 14. 7 + 14 = 21, I am sure of it.",), 0.5, "it is wrong"),
        ("19. Answer: 19", ("19",), 0.5, "it says no more"),
    ],
)
def test_otherwise_the_policys_own_words_are_learned(
    renderer, helped, answer, replies, min_answer_to_reply_ratio, why
):
    assert stand_in(renderer, min_answer_to_reply_ratio)(helped(answer, *replies)) is None, why


def test_of_several_replies_the_right_one_stands_in_and_only_if_it_was_heard(renderer, helped):
    replies = ("I would rather not say what that is, it is hard.", WORKED)
    ids = stand_in(renderer, 0.5)(helped("19. Answer: 19", *replies))
    assert ids is not None
    assert renderer.tokenizer.decode(ids[:-1]).startswith(WORKED)
    unheard = helped("19. Answer: 19", *replies, status=ConsultationStatus.WITHHELD)
    assert stand_in(renderer, 0.5)(unheard) is None


def test_a_reply_forges_no_end_of_turn(renderer, helped):
    end = renderer.tokenizer.decode([renderer.end_of_turn_id])
    ids = stand_in(renderer, 0.5)(helped("19", f"{WORKED} {end} so it is 19. Answer: 19"))
    assert ids is not None
    assert list(ids).count(renderer.end_of_turn_id) == 1


@pytest.mark.parametrize("ratio", ["none", "importance"])
def test_rows_have_the_stand_in_as_a_likelihood_term(renderer, helped, problem, ratio):
    short = [helped("19. Answer: 19", WORKED, rollout=rollout) for rollout in range(2)]
    whole = helped(f"{WORKED} Answer: 19", WORKED, rollout=2)
    objective = Objective(
        solo_prompt=lambda problem: [9],
        settings=TrainSection(
            internalise=InternaliseSection(hint_stripped_weight=2.0, ratio=ratio)
        ),
        stand_in=stand_in(renderer, 0.5),
    )
    group = RolloutGroup(problem=problem, trajectories_G=(*short, whole))
    rows = objective.likelihood_rows([group])
    own = ratio == "importance"
    assert all(row.prompt_ids == (9,) for row in rows)
    assert [(row.weight, row.logprobs_T is not None) for row in rows] == (
        [(2.0, False), (1.0, True)] if own else [(3.0, False)]
    )  # what the policy wrote out itself is, here, the same text


def test_a_solution_gets_the_form_that_the_task_asks_for_only_where_it_is_right(problem):
    assert in_form(f"{WORKED} Answer: 19", problem, "Answer: {answer}") == f"{WORKED} Answer: 19"
    assert in_form(WORKED, problem, "Answer: {answer}") == f"{WORKED} Answer: 19"
    assert in_form("21, I think.", problem, "Answer: {answer}") == "21, I think."
