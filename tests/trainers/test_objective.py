"""What is learned from groups: advantages by name and by condition, penalties, shaping, likelihood
rows."""

import dataclasses

import pytest

from eapo_agents.errors import GradingError
from eapo_agents.recipe import OverlongSection, PenaltySection, TrainSection
from eapo_agents.types import Consultation, ConsultationStatus, Role, RolloutGroup, Turn
from trainers.advantages import group_advantages
from trainers.batches import pad_rows
from trainers.objective import Objective, overlong_shaping, penalty_of


def turn(completion=(7, 2), parent=None, asked=0, status=ConsultationStatus.ACCEPTED) -> Turn:
    consultations = tuple(
        Consultation(
            slot=slot, expert="e", query="q", reply="r", status=status, rho=1, u=0, tokens=10
        )
        for slot in range(asked)
    )
    return Turn(
        context_ids=(1, 5),
        completion_ids=tuple(completion),
        logprobs=(-0.5,) * len(completion),
        parent=parent,
        text="",
        finish_reason="stop",
        consultations=consultations,
    )


@pytest.fixture
def member(trajectory):
    """member(reward, solo=..., asked=...) -> a trajectory."""

    def make(reward: float, *, solo: bool = False, asked: int = 0, **changes):
        turns = (turn(asked=asked), turn((4, 2), parent=0)) if asked else (turn((4, 2)),)
        made = trajectory(turns, reward=reward, correct=reward == 1.0)
        return dataclasses.replace(made, role=Role.SOLO if solo else Role.CONSULT, **changes)

    return make


def objective(**settings) -> Objective:
    return Objective(solo_prompt=lambda problem: [9], settings=TrainSection(**settings))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("dr_grpo", [0.75, -0.25, -0.25, -0.25]), ("rloo", [1.0, -1 / 3, -1 / 3, -1 / 3])],
)
def test_advantages_by_name(kind, wanted):
    assert group_advantages([1.0, 0.0, 0.0, 0.0], kind) == pytest.approx(wanted)


def test_members_are_compared_with_those_that_had_experts_as_they_had(problem, member):
    members = (
        member(0.0, solo=True),
        member(0.0, solo=True),
        member(1.0, asked=1),
        member(0.0, asked=1),
    )
    group = RolloutGroup(problem=problem, trajectories_G=members)
    alike = objective(advantage="dr_grpo", baseline="condition")
    assert alike.advantages(group) == pytest.approx([0, 0, 0.5, -0.5])
    together = objective(advantage="dr_grpo")
    assert together.advantages(group) == pytest.approx([-0.25, -0.25, 0.75, -0.25])


def test_consulting_costs_what_the_recipe_says_and_only_where_the_group_can_do_without(member):
    asked_twice = member(1.0, asked=2)
    both = PenaltySection(per_call=0.1, per_token=0.001)
    assert penalty_of(asked_twice, None, both) == pytest.approx(0.22)
    spared = PenaltySection(per_call=0.1, min_solo_accuracy=0.5)
    assert penalty_of(asked_twice, 0.25, spared) == 0
    assert penalty_of(asked_twice, 0.5, spared) == pytest.approx(0.2)


def test_a_penalty_gives_spread_to_a_group_in_which_all_are_right(problem, member):
    group = RolloutGroup(problem=problem, trajectories_G=(member(1.0), member(1.0, asked=1)))
    assert not objective().has_spread(group)
    assert objective(penalty=PenaltySection(per_call=0.1)).has_spread(group)


def test_overlong_trajectories_lose_up_to_one():
    shaping = OverlongSection(tokens=100, buffer=20)
    assert [overlong_shaping(n, shaping) for n in (50, 80, 90, 100, 900)] == [0, 0, -0.5, -1, -1]


def test_right_trajectories_are_rehearsed_as_they_were_and_stripped(problem, member):
    asking, solo = member(1.0, asked=1), member(1.0, solo=True)
    group = RolloutGroup(problem=problem, trajectories_G=(asking, solo, member(0.1, asked=1)))
    rows = objective(
        internalise={"hint_stripped_weight": 2.0, "rehearsal_weight": 0.5}
    ).likelihood_rows([group])
    assert [(row.prompt_ids, row.advantage, row.trajectory) for row in rows] == [
        ((1, 5), 0.5, asking),
        ((1, 5), 0.5, solo),
        ((9,), 2.0, asking),
    ]
    assert all(row.logprobs_T is None for row in rows)
    assert rows[0].mask_T == (1, 1, 0, 0, 1, 1)


def test_what_members_can_do_alone_is_learned_where_experts_are_offered(problem, member):
    alone, asking = member(1.0, solo=True), member(1.0, asked=1)
    asking = dataclasses.replace(
        asking,
        turns=(dataclasses.replace(asking.turns[0], context_ids=(1, 8, 5)), *asking.turns[1:]),
    )
    wrong = member(0.1, solo=True)
    groups = [
        RolloutGroup(problem=problem, trajectories_G=members)
        for members in (
            (wrong, alone, asking),  # half can do it alone
            (alone, alone, asking),
            (alone, alone),  # nobody was offered an expert
        )
    ]
    rows = objective(internalise={"solo_answer_weight": 0.5}).likelihood_rows(groups)
    assert [(row.prompt_ids, row.completion_ids_T, row.advantage) for row in rows] == [
        ((1, 8, 5), (4, 2), 0.5)
    ]
    assert (rows[0].weight, rows[0].trajectory, rows[0].logprobs_T) == (2.0, alone, None)
    half = objective(
        internalise={"solo_answer_weight": 0.5, "solo_answer_min_accuracy": 0.5}
    ).likelihood_rows(groups)
    assert [(row.weight, row.trajectory) for row in half] == [(1.0, alone), (2.0, alone)]


def test_with_the_ratio_a_stripped_row_keeps_its_logprobs(problem, member):
    group = RolloutGroup(problem=problem, trajectories_G=(member(1.0, asked=1),) * 2)
    rows = objective(
        internalise={"hint_stripped_weight": 1.0, "ratio": "importance"}
    ).likelihood_rows([group])
    assert [row.logprobs_T for row in rows] == [(-0.5, -0.5)] * 2


def test_groups_that_succeed_alone_need_no_hints(problem, member):
    group = RolloutGroup(
        problem=problem, trajectories_G=(member(1.0, solo=True), member(1.0, asked=1))
    )
    assert objective(internalise={"hint_stripped_weight": 1.0}).likelihood_rows([group])
    spared = objective(internalise={"hint_stripped_weight": 1.0, "max_solo_accuracy": 0.5})
    assert spared.likelihood_rows([group]) == []


def test_an_experts_right_solution_is_imitated_and_a_wrong_one_is_not(problem, trajectory):
    solutions = [
        dataclasses.replace(trajectory((turn(),), correct=right), role=Role.EXPERT)
        for right in (True, False)
    ]
    groups = [RolloutGroup(problem=problem, trajectories_G=(s,)) for s in solutions]
    rows = objective().likelihood_rows(groups)
    assert [(row.prompt_ids, row.completion_ids_T, row.trajectory) for row in rows] == [
        ((9,), (7, 2), solutions[0])
    ]


def test_a_helped_members_context_is_the_teacher_of_those_that_work_alone(problem, member):
    helped = member(1.0, asked=1)
    wrong = member(0.0, solo=True)
    unscored = dataclasses.replace(wrong, reward=None)
    group = RolloutGroup(problem=problem, trajectories_G=(wrong, unscored, helped))
    hopeless = RolloutGroup(problem=problem, trajectories_G=(wrong, member(0.0, asked=1)))
    rows = objective(internalise={"self_distillation_weight": 0.5}).likelihood_rows(
        [hopeless, group]
    )
    assert [(row.prompt_ids, row.completion_ids_T, row.trajectory) for row in rows] == [
        ((1, 5), (4, 2), wrong)
    ]
    assert (rows[0].advantage, rows[0].logprobs_T) == (0.5, None)
    # its prompt, its query, and what came back
    assert rows[0].teacher_ids == (1, 5, 7, 2, 1, 5)


def chain(*lengths: int) -> tuple[Turn, ...]:
    return tuple(turn((4,) * n, parent=i - 1 if i else None) for i, n in enumerate(lengths))


def with_turns(problem, trajectory, rewards_and_turns) -> RolloutGroup:
    members = tuple(trajectory(turns, reward=reward) for reward, turns in rewards_and_turns)
    return RolloutGroup(problem=problem, trajectories_G=members)


def test_a_turn_earns_less_the_more_turns_follow_it(problem, trajectory):
    group = with_turns(problem, trajectory, [(1.0, chain(2, 1, 2)), (0.0, chain(1))])
    discounted = objective(advantage="dr_grpo", turn_discount=0.5)
    assert discounted.turn_advantages(group) == [[0.125, 0.25, 0.5], [-0.5]]
    first, second = discounted.relative_rows([group])
    # two context tokens before each further turn carry nothing
    assert first.advantages_T == (0.125, 0.125, 0.0, 0.0, 0.25, 0.0, 0.0, 0.5, 0.5)
    assert second.advantages_T == (-0.5,)
    batch = pad_rows([first, second], multiple=1, pad_id=0)
    assert batch["advantages"][0].tolist() == list(first.advantages_T)
    assert batch["advantages"][1].tolist() == [-0.5] + [0.0] * 8
    (plain, _) = objective(advantage="dr_grpo").relative_rows([group])
    assert (plain.advantage, plain.advantages_T) == (0.5, None)


def test_process_rewards_are_compared_over_all_turns_and_count_for_what_came_before(
    problem, trajectory
):
    unscored = dataclasses.replace(trajectory(chain(1)), reward=None)
    group = with_turns(problem, trajectory, [(1.0, chain(1, 2)), (1.0, chain(3, 1))])
    group = dataclasses.replace(group, trajectories_G=(*group.trajectories_G, unscored))
    long_is_bad = dataclasses.replace(
        objective(advantage="dr_grpo", turn_discount=0.5),
        reward_of_turn=lambda turn, trajectory: -len(turn.completion_ids),
    )
    # -1, -2, -3, -1: the mean is -1.75
    assert long_is_bad.turn_advantages(group) == [
        pytest.approx([0.75 - 0.125, -0.25]),
        pytest.approx([-1.25 + 0.375, 0.75]),
        [],
    ]
    # all rewards are equal, and the turns are not
    assert long_is_bad.has_spread(group)
    assert not objective(turn_discount=0.5).has_spread(group)
    assert len(long_is_bad.relative_rows([group])) == 2


@pytest.mark.parametrize(
    ("value", "says"), [(float("nan"), "finite number, got nan"), ("x", "'x'")]
)
def test_a_process_reward_that_is_no_number_is_an_error(problem, trajectory, value, says):
    group = with_turns(problem, trajectory, [(1.0, chain(1)), (0.0, chain(1))])
    wrong = dataclasses.replace(objective(), reward_of_turn=lambda turn, trajectory: value)
    with pytest.raises(GradingError, match=says):
        wrong.relative_rows([group])
    failing = dataclasses.replace(objective(), reward_of_turn=lambda turn: 1.0)
    with pytest.raises(GradingError, match="TypeError"):
        failing.has_spread(group)
