"""Live rollouts: under a budget for experts, and after an interruption."""

import dataclasses

import pytest

from eapo_agents.errors import BudgetError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.kinds import make_expert
from eapo_agents.experts.pool import ExpertPool
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.schedules import AcceptanceSchedule, TurnBudget
from eapo_agents.store import TraceStore
from eapo_agents.types import ConsultationStatus, RolloutGroup
from graphs.concurrency import Concurrency
from graphs.consult import build_consult_graph
from graphs.rollout import Rollouts
from trainers.call_limit import CallLimit
from trainers.sources import LiveRollouts, group_metrics, merge_metrics


def live(policy, pool, acceptance, problem, store) -> LiveRollouts:
    return LiveRollouts(
        rollouts=Rollouts(
            graph=build_consult_graph(policy, pool, acceptance=acceptance, turns=TurnBudget()),
            policy=policy,
            system_prompt="",
            seed=0,
        ),
        concurrency=Concurrency("auto", policy.engine),
        problems=[problem],
        num_rollouts=4,
        store=store,
        run_id="train",
    )


def start(store, policy):
    """Begin the run `train` of a scripted policy."""
    version = policy.engine.policy_version
    store.start_run("train", kind="train", recipe={}, sampling=policy.sampling, policy=version)


def test_a_step_that_meets_a_spent_budget_continues_with_what_is_missing(
    scripted, problem, tmp_path
):
    def script(key, prompt):
        ask = format_call("a", {"query": f"{key.rollout}"})
        return "Answer: 19" if key.turn else ask

    policy = scripted(script)
    options = {"default": "a reply"}
    pool = ExpertPool(
        [make_expert("scripted", name="a", options=options, stored=True)], budget=Budget(calls=3)
    )
    always = AcceptanceSchedule(kind="constant")
    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        start(store, policy)
        source = live(policy, pool, always, problem, store)
        with pytest.raises(BudgetError, match="3 of 3 calls"):
            source.groups([0], 1)
        assert [s.trajectory.correct for s in store.trajectories()] == [True] * 3
        pool.budget.calls = 4
        (group,) = source.groups([0], 1)
        assert [t.correct for t in group.trajectories_G] == [True] * 4
        assert len(list(store.trajectories())) == 4
    assert pool.budget.spent_calls == 4
    assert [row.cached for _, row in pool.store.rows()] == [False] * 4


@pytest.mark.parametrize(("num_left", "weights", "num_run"), [
    (4, None, 0),
    (3, None, 1),
    (4, "of another try", 4),
])  # fmt: skip
def test_a_resumed_step_takes_what_was_rolled_out_by_the_same_weights_and_runs_the_rest(
    scripted, problem, tmp_path, num_left, weights, num_run
):
    ran = []

    def script(key, prompt):
        ran.append(key.rollout)
        return "Answer: 19"

    policy = scripted(script)
    pool = ExpertPool([make_expert("scripted", name="a", options={"default": "a reply"})])
    never = AcceptanceSchedule(kind="never")
    version = policy.engine.policy_version
    start = {"kind": "train", "recipe": {}, "sampling": policy.sampling, "policy": version}
    with TraceStore.open(tmp_path / "before.db", create=True) as store:
        store.start_run("train", **start)
        (unbroken,) = live(policy, pool, never, problem, store).groups([0], 2)
        stored = list(store.trajectories())
    other = dataclasses.replace(version, weights=weights or version.weights)
    with TraceStore.open(tmp_path / "cut_off.db", create=True) as store:
        store.start_run("train", **start)
        for one in stored[:num_left]:
            left = dataclasses.replace(one.trajectory, policy=other)
            store.append(left, run_id="train", group_key=one.group_key)
        ran.clear()
        (group,) = live(policy, pool, never, problem, store).groups([0], 2)
        assert len(ran) == num_run
        answers = [(t.rollout, t.policy.weights, t.answer) for t in group.trajectories_G]
        assert answers == [(t.rollout, version.weights, t.answer) for t in unbroken.trajectories_G]
        assert len(list(store.trajectories())) == num_left + num_run
        # a second interruption finds the second try
        ran.clear()
        (again,) = live(policy, pool, never, problem, store).groups([0], 2)
        assert ran == []
        assert [t.rollout for t in again.trajectories_G] == [0, 1, 2, 3]


def test_a_limit_on_calls_withholds_further_replies_and_an_interrupted_run_withholds_the_same(
    scripted, problem, tmp_path
):
    def script(key, prompt):
        asks = key.turn == 0 and key.rollout != 1
        return format_call("a", {"query": "q"}) if asks else "Answer: 19"

    policy = scripted(script)
    always = AcceptanceSchedule(kind="constant")
    options = {"default": "a reply"}
    accepted = {}
    for killed in (False, True):
        # replies are not stored: each is a call
        pool = ExpertPool([make_expert("scripted", name="a", options=options)])
        with TraceStore.open(tmp_path / f"{killed}.db", create=True) as store:
            start(store, policy)

            def source(pool=pool, store=store):
                limit = CallLimit(most=5, a_rollout=lambda step: 1)
                return dataclasses.replace(live(policy, pool, always, problem, store), limit=limit)

            one = source()
            groups = []
            for step in (1, 2, 3):
                one = source() if killed else one
                groups += one.groups([0], step)
            accepted[killed] = [
                [t.rollout for t in group.trajectories_G for turn in t.turns
                 for c in turn.consultations if c.status is ConsultationStatus.ACCEPTED]
                for group in groups
            ]  # fmt: skip
            assert len(pool.store.rows()) == 9  # the withheld ones too
            assert sum(row.attempts for _, row in pool.store.rows()) == 5
    # the second step has two calls left: its rollouts 0 and 1 may ask, and 1 does not
    assert accepted == {killed: [[0, 2, 3], [0], [0]] for killed in (False, True)}


def test_problems_that_are_settled_are_passed_over_and_a_resumed_run_passes_over_the_same(
    scripted, problem, tmp_path
):
    problems = [dataclasses.replace(problem, id=f"p{n}") for n in range(8)]

    def script(key, prompt):
        always = int(key.problem_id[1:]) < 4
        return "Answer: 19" if always or key.rollout == 0 else "Answer: 8"

    policy = scripted(script)
    pool = ExpertPool([make_expert("scripted", name="a", options={"default": "a reply"})])
    never = AcceptanceSchedule(kind="never")

    def source(store, share):
        made = live(policy, pool, never, problem, store)
        made.problems, made.skip_settled = problems, share
        return made

    def drawn(groups):
        return [group.problem.id for group in groups]

    with TraceStore.open(tmp_path / "t.db", create=True) as store:
        start = {"recipe": {}, "sampling": policy.sampling, "policy": policy.engine.policy_version}
        store.start_run("train", kind="train", **start)
        unbroken = source(store, 1.0)
        assert drawn(unbroken.groups([0, 1, 4], 1)) == ["p0", "p1", "p4"]
        second = drawn(unbroken.groups([0, 1, 4], 2))
        assert second[2] == "p4"
        assert not {"p0", "p1"} & set(second)
        third = drawn(unbroken.groups([0, 2, 3], 3))
        assert drawn(source(store, 1.0).groups([0, 2, 3], 3)) == third
        assert drawn(source(store, 0.0).groups([0, 1, 4], 2)) == ["p0", "p1", "p4"]


def test_the_mean_of_each_part_of_a_reward_is_among_a_steps_figures(problem, trajectory):
    given = [{"right": 1.0, "brief": 0.5}, {"right": 0.0, "brief": 0.0}, {"right": 0.5}]
    trajectories = [
        trajectory((), rollout=n, reward=sum(parts.values()), reward_parts=parts)
        for n, parts in enumerate(given)
    ]
    group = RolloutGroup(problem=problem, trajectories_G=tuple(trajectories))
    figures = group_metrics([group])
    assert (figures["reward/right"], figures["reward/brief"]) == (0.5, 0.25)
    other = group_metrics([RolloutGroup(problem=problem, trajectories_G=(trajectories[0],))])
    merged = merge_metrics([figures, other])
    assert merged["reward/right"] == 0.625  # weighed by rollouts
