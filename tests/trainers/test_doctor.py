"""The doctor refuses what would make the loss wrong, and counts what would only waste it."""

import dataclasses
import math

import pytest

from eapo_agents.errors import TraceError
from eapo_agents.types import RolloutGroup, Sampling, StopReason, Turn
from trainers.doctor import Expectation, examine, examined

TURN = Turn(
    context_ids=(1, 2),
    completion_ids=(3, 4),
    logprobs=(-0.5, -0.25),
    parent=None,
    text="t",
    finish_reason="stop",
)
TRAINER = Expectation(
    temperature=1.0, top_p=1.0, base="base", weights="weights", step=0, max_staleness_steps=0
)


def group(problem, *members) -> RolloutGroup:
    return RolloutGroup(problem=problem, trajectories_G=members)


def test_good_traces_pass(problem, trajectory):
    report = examine(
        [group(problem, trajectory((TURN,)), trajectory((TURN,), reward=0.0))], TRAINER
    )
    report.raise_if_blocking()
    assert (report.num_trajectories, report.num_tokens, report.num_without_spread) == (2, 4, 0)


def versions(**changes):
    def change(t):
        return dataclasses.replace(t, policy=dataclasses.replace(t.policy, **changes))

    return change


def turns(**changes):
    return lambda t: dataclasses.replace(t, turns=(dataclasses.replace(TURN, **changes),))


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("without_logprobs", turns(logprobs=None), "without logprobs"),
        ("other_model", versions(base="other"), "base other"),
        ("other_weights", versions(weights="other"), "other weights"),
        ("other_weights", versions(step=5), "later policy"),
        ("broken", turns(logprobs=(-0.5,)), "no logprob for each"),
        ("broken", turns(logprobs=(-0.5, math.nan)), "not finite"),
        ("broken", turns(logprobs=(-0.5, 2.0)), "above 0"),
        ("broken", turns(parent=7), "trace is broken"),
    ],
)
def test_a_trace_that_would_make_the_loss_wrong_is_left_out(
    problem, trajectory, name, change, says
):
    good, failed = trajectory((TURN,)), trajectory((), error="boom", reward=None)
    bad, alone = (change(trajectory((TURN,), rollout=rollout)) for rollout in (1, 2))
    groups = [group(problem, good, bad, failed), group(problem, alone, failed)]
    report, sound = examined(groups, TRAINER)
    assert sound == [group(problem, good, failed)]
    (finding,) = report.blocking
    assert (finding.name, finding.trajectories) == (name, ["p0, rollout 1", "p0, rollout 2"])
    assert (report.num_blocked, report.num_sampled, report.num_trajectories) == (2, 3, 5)
    with pytest.raises(TraceError, match=says) as refusal:
        report.raise_if_blocking()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.7), Sampling(top_p=0.9)])
def test_traces_sampled_under_other_settings_block(problem, trajectory, sampling):
    report = examine([group(problem, trajectory((TURN,), sampling=sampling))], TRAINER)
    assert [finding.name for finding in report.blocking] == ["other_settings"]


def test_older_traces_block_only_beyond_the_allowed_age(problem, trajectory):
    old = group(problem, trajectory((TURN,)))
    later = dataclasses.replace(TRAINER, weights=None, step=4)
    assert not examine([old], dataclasses.replace(later, max_staleness_steps=4)).blocking
    (finding,) = examine([old], dataclasses.replace(later, max_staleness_steps=3)).blocking
    assert "at most 3 optimizer steps" in finding.message


def test_without_a_trainer_traces_must_agree_with_each_other(problem, trajectory):
    mixed = group(
        problem, trajectory((TURN,)), trajectory((TURN,), sampling=Sampling(temperature=0.5))
    )
    assert [finding.name for finding in examine([mixed]).blocking] == ["other_settings"]
    assert not examine([]).blocking


def test_failed_and_unscored_rollouts_and_flat_groups_are_counted_not_refused(problem, trajectory):
    failed = trajectory((), stop_reason=StopReason.ERROR, error="boom", reward=None, correct=None)
    report = examine([group(problem, failed, trajectory((TURN,)))], TRAINER)
    assert (report.blocking, report.num_unscored, report.num_without_spread) == ([], 1, 1)
