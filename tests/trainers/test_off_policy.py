"""Rows that the policy did not sample behind their prompt: hints that are taken away, solutions
among rollouts, and how their tokens are weighted."""

import dataclasses

import pytest
import torch

from eapo_agents.recipe import OffPolicySection, TrainSection
from eapo_agents.types import Consultation, ConsultationStatus, Role, RolloutGroup, Turn
from graphs.fill import run_to_end
from graphs.rollout import RolloutPlan, run_rollouts
from trainers.objective import Objective
from trainers.off_policy import RowsOf, kinds_of, token_factors, was_hinted
from trainers.rows import trajectory_rows
from trainers.run import train_logged, usable_groups

HINT = Consultation(
    slot=0, expert="e", query="q", reply="r", status=ConsultationStatus.ACCEPTED, rho=1, u=0
)
TURN = Turn(
    context_ids=(1, 5, 6),
    completion_ids=(4, 2),
    logprobs=(-0.5, -0.25),
    parent=None,
    text="",
    finish_reason="stop",
    consultations=(HINT,),
)
RETRY = dataclasses.replace(TURN, context_ids=(8, 8), completion_ids=(3, 2), parent=0)
SOLO_PROMPT = (9, 9)


def rows_of(hints: str) -> RowsOf:
    return RowsOf(solo_prompt=lambda problem: SOLO_PROMPT, settings=OffPolicySection(hints=hints))


@pytest.mark.parametrize("turns", [(TURN,), (TURN, RETRY)])
def test_a_hint_that_is_taken_away_leaves_the_last_turn_behind_the_tool_free_prompt(
    trajectory, turns
):
    helped = trajectory(turns)
    (row,) = rows_of("ratio")(helped, 0.5)
    assert (row.prompt_ids, row.completion_ids_T) == (SOLO_PROMPT, turns[-1].completion_ids)
    assert (row.mask_T, row.logprobs_T) == ((1, 1), (-0.5, -0.25))
    assert (row.advantage, row.off_policy, row.trajectory) == (0.5, "ratio", helped)
    assert rows_of("kept")(helped, 0.5) == trajectory_rows(helped, advantage=0.5)


def test_rollouts_without_an_accepted_reply_are_trained_as_they_were_sampled(trajectory):
    withheld = dataclasses.replace(HINT, status=ConsultationStatus.WITHHELD)
    without = trajectory((dataclasses.replace(TURN, consultations=(withheld,)),))
    solo = trajectory((dataclasses.replace(TURN, consultations=()),), role=Role.SOLO)
    for one in (without, solo):
        assert rows_of("shaped")(one, 1.0) == trajectory_rows(one, advantage=1.0)


def test_which_rows_are_weighted_and_how(trajectory):
    now, old = trajectory((TURN,)), trajectory((TURN,))
    old = dataclasses.replace(old, policy=dataclasses.replace(old.policy, step=-1))
    fresh, stale = (trajectory_rows(t, advantage=1.0)[0] for t in (now, old))
    (moved,) = rows_of("shaped")(old, 1.0)
    plain = dataclasses.replace(fresh, logprobs_T=None)
    kinds = kinds_of([fresh, stale, moved], [plain, fresh], first=0)
    assert kinds == [None, "ratio", "shaped", None, "ratio"]


def test_the_weights_of_tokens():
    p = torch.tensor([[0.5, 0.01]] * 5)
    old = torch.tensor([[0.25, 0.1]] * 5).log()
    kinds = ["ratio", "shaped", "uncertain", None]  # and a row of padding
    found = token_factors(kinds, p.log(), old, ratio_cap=1.5, gamma=0.1)
    slopes = [0.1 * each / (each + 0.1) ** 2 for each in (0.5, 0.01)]
    wanted = [[1.5, 0.1], slopes, [0.25, 0.0099], [1, 1], [1, 1]]
    torch.testing.assert_close(found, torch.tensor(wanted))


@pytest.fixture
def mixed(trajectory, problem) -> RolloutGroup:
    """Three wrong solo rollouts and an expert's right solution."""
    wrong = trajectory((dataclasses.replace(TURN, consultations=()),), reward=0.0, correct=False)
    solution = dataclasses.replace(TURN, logprobs=None, completion_ids=(7, 7, 2))
    expert = trajectory((solution,), role=Role.EXPERT)
    solo = [dataclasses.replace(wrong, role=Role.SOLO, rollout=n) for n in range(3)]
    return RolloutGroup(problem=problem, trajectories_G=(*solo, expert))


def objective(**settings) -> Objective:
    train = TrainSection(advantage="dr_grpo", **settings)
    return Objective(solo_prompt=lambda problem: SOLO_PROMPT, settings=train)


def test_a_solution_among_rollouts_is_compared_with_them(mixed):
    luffy = objective(off_policy={"solutions": "rollout"}, penalty={"per_call": 0.5})
    *solo, solution = luffy.relative_rows([mixed])
    assert [row.advantage for row in solo] == [-0.25] * 3
    assert (solution.prompt_ids, solution.completion_ids_T) == (SOLO_PROMPT, (7, 7, 2))
    assert (solution.advantage, solution.off_policy) == (0.75, "shaped")
    assert luffy.likelihood_rows([mixed]) == []
    assert luffy.has_spread(mixed)


def test_a_solution_beside_rollouts_is_imitated_and_not_compared(mixed):
    chord = objective(off_policy={"solutions": "likelihood", "solution_weight": 0.1})
    assert chord.relative_rows([mixed]) == []
    (row,) = chord.likelihood_rows([mixed])
    assert (row.advantage, row.off_policy, row.logprobs_T) == (0.1, "uncertain", None)


FEW = ("train.problems_per_step=2", "train.num_generations=2")


def test_solutions_are_asked_for_once_a_problem_and_are_no_rollouts(
    agent_of, live, eight_problems, tmp_path
):
    found = []
    for cuts in ((), (2,)):  # at once, and cut off
        folder = tmp_path / str(len(cuts))
        folder.mkdir()
        told = []
        for until in (*cuts, None):
            agent = agent_of(*FEW, "train.steps=3", "train.expert_calls=3", arm="luffy")
            more, trajectories = live(agent, eight_problems, folder, until)
            told += more
        assert [m["experts/calls"] for m in told] == [2, 1, 0]
        assert [m["rollouts"] for m in told] == [4] * 3
        assert [m["accuracy"] for m in told] == [0] * 3  # the solutions are not the policy's
        assert [m["nonzero_variance_groups"] for m in told] == [1, 0.5, 0]
        assert [t.role for t in trajectories].count(Role.EXPERT) == 3
        assert len(list(agent.pool.store.rows())) == 3
        found.append(agent.engine.policy_version.weights)
    assert found[0] == found[1]


def logprob(agent, context_ids, turn: Turn) -> float:
    """Mean log-probability of a turn's tokens behind some context."""
    agent.model.eval()
    ids = torch.tensor([[*context_ids, *turn.completion_ids]])
    with torch.no_grad():
        logprobs = agent.model(ids).logits[0, :-1].log_softmax(-1)
    return float(logprobs.gather(1, ids[0, 1:, None])[-len(turn.completion_ids) :].mean())


@pytest.mark.parametrize("arm", ["luffy", "chord"])
def test_solutions_among_rollouts_become_likelier(agent_of, live, eight_problems, tmp_path, arm):
    agent = agent_of(*FEW, "train.steps=6", "train.learning_rate=2e-2", arm=arm)
    _, trajectories = live(agent, eight_problems, tmp_path)
    (turn,) = next(t for t in trajectories if t.role is Role.EXPERT).turns
    assert logprob(agent, turn.context_ids, turn) > -5.0  # untrained: about -ln 320 = -5.8


def test_what_was_said_with_a_hint_in_sight_becomes_likelier_without_it(
    agent_of, eight_problems, tmp_path
):
    agent = agent_of(*FEW, "train.method=logged", "train.learning_rate=1e-3", arm="pushed-hints")
    policy = agent.policy(agent.sampling)
    plans = [RolloutPlan(problem=eight_problems[0], rollouts=range(4), num_solo=2, solo_first=True)]
    (group,) = run_to_end(
        run_rollouts(
            agent.graph(policy),
            policy,
            plans,
            system_prompt="",
            seed=0,
            assistance=agent.assistance,
        )
    )
    # a fresh model answers nothing: its tokens are real, what they earned is made up
    rewarded = tuple(
        dataclasses.replace(t, reward=float(n == 3), correct=n == 3)
        for n, t in enumerate(group.trajectories_G)
    )
    assert [was_hinted(t) for t in rewarded] == [False, False, True, True]
    group = RolloutGroup(problem=group.problem, trajectories_G=rewarded)
    (turn,) = rewarded[3].turns
    solo_prompt = rewarded[0].turns[0].context_ids
    assert tuple(agent.solo_prompt(group.problem)) == solo_prompt != turn.context_ids
    before = logprob(agent, solo_prompt, turn)
    train_logged(agent, usable_groups(agent, [group] * 2), tmp_path / "out")
    assert logprob(agent, solo_prompt, turn) > before


def test_a_prefix_is_pushed_in_a_live_run_and_its_rollouts_are_trained_as_they_were(
    agent_of, live, eight_problems, tmp_path
):
    worked = [
        dataclasses.replace(p, metadata={"solution": f"One. Two. Three. It is {p.answer}."})
        for p in eight_problems
    ]
    agent = agent_of(*FEW, "train.steps=1", arm="prefix")
    (told,), trajectories = live(agent, worked, tmp_path)
    helped = [t for t in trajectories if t.role is Role.CONSULT]
    assert (told["experts/calls"], len(helped), len(trajectories)) == (2, 2, 4)
    assert {t.turns[0].consultations[0].reply for t in helped} == {"One.\nTwo.\nThree."}


def test_help_that_is_pushed_ends_with_the_calls_of_the_run(
    agent_of, live, eight_problems, tmp_path
):
    settings = ("train.expert_calls=3", "consult.acceptance={kind: constant}")
    agent = agent_of(*FEW, *settings, "train.steps=3", arm="pushed-hints")
    told, trajectories = live(agent, eight_problems, tmp_path)
    assert [m["experts/calls"] for m in told] == [2, 1, 0]
    assert len(trajectories) == 12
    assert sum(was_hinted(t) for t in trajectories) == 3
