"""Masks and logprobs on literal tokens."""

import dataclasses

import pytest

from eapo_agents.errors import TraceError
from eapo_agents.types import Consultation, ConsultationStatus, RolloutGroup, Turn
from trainers.advantages import group_advantages, group_rows, has_spread
from trainers.likelihood import hint_stripped_rows, num_help_not_apart
from trainers.rows import TrainingRow, trajectory_rows


def consultation(slot: int, status=ConsultationStatus.ACCEPTED) -> Consultation:
    return Consultation(slot=slot, expert="e", query="q", reply="r", status=status, rho=0.5, u=0.1)


def turn(context, completion, logprobs, parent=None, **changes) -> Turn:
    return Turn(
        context_ids=tuple(context),
        completion_ids=tuple(completion),
        logprobs=None if logprobs is None else tuple(logprobs),
        parent=parent,
        text="",
        finish_reason="stop",
        **changes,
    )


TWO_TURNS = (
    turn(
        [1, 5, 6],
        [7, 8, 2],
        [-0.1, -0.2, -0.3],
        consultations=(consultation(0), consultation(1, ConsultationStatus.WITHHELD)),
    ),
    turn([9, 4, 3], [7, 2], [-0.4, -0.5], parent=0),
)


def test_two_turns_with_two_experts_make_one_row_shown_here_in_full(trajectory):
    whole = trajectory(TWO_TURNS)
    assert trajectory_rows(whole, advantage=1.5) == [
        TrainingRow(
            prompt_ids=(1, 5, 6),
            completion_ids_T=(7, 8, 2, 9, 4, 3, 7, 2),
            mask_T=(1, 1, 1, 0, 0, 0, 1, 1),
            logprobs_T=(-0.1, -0.2, -0.3, 0.0, 0.0, 0.0, -0.4, -0.5),
            advantage=1.5,
            weight=1.0,
            trajectory=whole,
        )
    ]


def test_a_rewritten_history_makes_two_rows_that_weigh_as_one(trajectory):
    turns = (*TWO_TURNS, turn([1, 9], [3, 2], [-0.6, -0.7]))
    rows = trajectory_rows(trajectory(turns), advantage=1.0)
    assert [row.prompt_ids for row in rows] == [(1, 5, 6), (1, 9)]
    assert sum(row.weight for row in rows) == 1.0


def test_rows_of_interleaved_agents_stay_apart(trajectory):
    turns = (
        turn([1], [2], [-0.1]),
        turn([5], [6], [-0.2]),
        turn([3], [4], [-0.3], parent=0),
        turn([7], [8], [-0.4], parent=1),
    )
    rows = trajectory_rows(trajectory(turns), advantage=1.0)
    assert [(r.prompt_ids, r.completion_ids_T) for r in rows] == [
        ((1,), (2, 3, 4)),
        ((5,), (6, 7, 8)),
    ]


def test_a_branch_is_a_row_behind_the_tokens_that_another_row_trains(trajectory):
    turns = (
        turn([1], [2], [-0.1]),
        turn([3], [4], [-0.2], parent=0),
        turn([5], [6], [-0.3], parent=0),
        turn([7], [8], [-0.4], parent=2),
    )
    rows = trajectory_rows(trajectory(turns), advantage=1.0)
    assert [(r.prompt_ids, r.completion_ids_T, r.mask_T) for r in rows] == [
        ((1,), (2, 3, 4), (1, 0, 1)),
        ((1, 2, 5), (6, 7, 8), (1, 0, 1)),
    ]
    assert sum(row.weight for row in rows) == 1.0


def test_a_turn_without_a_sampled_token_gives_no_row(trajectory):
    assert trajectory_rows(trajectory((turn([1], [], []),)), advantage=1.0) == []


@pytest.mark.parametrize(
    "broken",
    [
        (turn([1], [2], None),),
        (turn([1], [2, 3], [-0.1]),),
        (turn([1], [2], [-0.1], parent=3),),
        (turn([1], [2], [-0.1]), turn([3], [4], [-0.1], parent=1)),
    ],
)
def test_a_broken_trace_is_refused_not_repaired(trajectory, broken):
    with pytest.raises(TraceError):
        trajectory_rows(trajectory(broken), advantage=1.0)


def test_advantages_are_normalised_over_the_scored_members_only():
    advantages = group_advantages([1.0, None, 0.0, 0.0])
    assert advantages[1] is None
    assert [round(a, 3) for a in advantages if a is not None] == [1.155, -0.577, -0.577]


def test_a_group_with_equal_rewards_has_nothing_to_say(trajectory, problem):
    group = RolloutGroup(
        problem=problem,
        trajectories_G=tuple(trajectory(TWO_TURNS, reward=0.1, rollout=g) for g in range(4)),
    )
    assert not has_spread(group)
    assert group_rows([group]) == []


def test_an_unscored_member_gives_no_row_and_moves_no_mean(trajectory, problem):
    members = [trajectory(TWO_TURNS, reward=r, rollout=g) for g, r in enumerate([1.0, 0.0, None])]
    rows = group_rows([RolloutGroup(problem=problem, trajectories_G=tuple(members))])
    assert [row.trajectory for row in rows] == members[:2]
    assert sum(row.advantage for row in rows) == pytest.approx(0)


def test_a_hint_stripped_row_is_the_answer_after_the_tool_free_prompt(trajectory, problem):
    helped = [trajectory(TWO_TURNS, rollout=g) for g in range(3)]
    wrong = trajectory(TWO_TURNS, rollout=3, correct=False, reward=0.1)
    group = RolloutGroup(problem=problem, trajectories_G=(*helped, wrong))
    assert hint_stripped_rows([group], lambda problem: [1, 2, 3], weight=0.5) == [
        TrainingRow(
            prompt_ids=(1, 2, 3),
            completion_ids_T=(7, 2),
            mask_T=(1, 1),
            logprobs_T=None,
            advantage=0.5,
            weight=3.0,
            trajectory=helped[0],
        )
    ]


def test_an_answer_that_nobody_helped_with_is_not_hint_stripped(trajectory, problem):
    withheld = turn([1], [2], [-0.1], consultations=(consultation(0, ConsultationStatus.WITHHELD),))
    alone = trajectory((withheld, turn([3], [4], [-0.1], parent=0)))
    group = RolloutGroup(problem=problem, trajectories_G=(alone,))
    assert hint_stripped_rows([group], lambda problem: [1], weight=1.0) == []
    assert num_help_not_apart([group]) == 0


def test_a_helped_answer_behind_a_rewritten_history_is_counted_as_left_out(trajectory, problem):
    asked, last = TWO_TURNS
    rewritten = trajectory((asked, dataclasses.replace(last, parent=None)))
    group = RolloutGroup(problem=problem, trajectories_G=(rewritten,))
    assert hint_stripped_rows([group], lambda problem: [1], weight=1.0) == []
    assert num_help_not_apart([group]) == 1
