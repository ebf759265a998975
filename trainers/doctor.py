"""The doctor: looks at traces before anything trains on them, and leaves out what would make the
loss wrong.

These are single trajectories: without logprobs, of another model, of other weights, sampled under
other settings, or with turns that do not fit together. Groups without spread of reward and unscored
trajectories are only counted: the trainer leaves them out. A store of which nothing is left is
refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from eapo_agents.errors import TraceError
from eapo_agents.types import PolicyVersion, RolloutGroup, Trajectory, Turn
from trainers.advantages import has_spread
from trainers.rows import is_own, num_left_out, trajectory_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What the trainer will assume of the traces; None leaves that unchecked."""

    temperature: float | None = None
    top_p: float | None = None
    base: str | None = None
    """Fingerprint of the base weights."""
    weights: str | None = None
    """Fingerprint of the weights that must have sampled them; None where older ones of this base
    may have."""
    step: int | None = None
    """Optimizer steps that the trainer's policy has seen."""
    max_staleness_steps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, over all trajectories."""

    name: str
    count: int
    message: str
    """What, the rule, what was found in the first such trajectory, what to do."""
    first: str
    """The first such trajectory: problem and rollout."""
    trajectories: list[str]
    """All of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the doctor saw."""

    num_groups: int
    num_trajectories: int
    num_sampled: int
    """Those that did not fail."""
    num_tokens: int
    """Sampled tokens."""
    num_unscored: int
    num_without_spread: int
    """Groups in which no two rewards differ."""
    num_several_rows: int
    """Trajectories that make more than one row."""
    num_tokens_left_out: int
    """Sampled tokens that are not trained: another model's, or another temperature's."""
    blocking: list[Finding] = field(default_factory=list)
    """What keeps single trajectories from being trained on."""
    num_blocked: int = 0
    """Trajectories that it keeps from being trained on."""

    def raise_if_blocking(self) -> None:
        """Raise TraceError with the first finding, if there is one."""
        if self.blocking:
            finding = self.blocking[0]
            raise TraceError(
                f"{finding.message} ({finding.count} of {self.num_trajectories} trajectories; "
                f"the first is {finding.first})"
            )


def examine(groups: Sequence[RolloutGroup], expected: Expectation | None = None) -> Report:
    """Examine groups; without an expectation only whether they are whole and agree with each
    other."""
    return examined(groups, expected)[0]


def examined(
    groups: Sequence[RolloutGroup], expected: Expectation | None = None
) -> tuple[Report, list[RolloutGroup]]:
    """Return the report, and the groups without the trajectories that are not to be trained on.
    Failed rollouts stay in them, as rollouts without a reward."""
    trajectories = [t for group in groups for t in group.trajectories_G]
    # a failed rollout is no trace: it has no turns, and is never trained on
    sampled = [t for t in trajectories if t.error is None]
    if expected is None:
        expected = _agreement(sampled)
    wrong_of: dict[str, list[tuple[Trajectory, str]]] = {}
    blocked: set[int] = set()
    for name, check in _CHECKS.items():
        for trajectory in sampled:
            if why := check(trajectory, expected):
                wrong_of.setdefault(name, []).append((trajectory, why))
                blocked.add(id(trajectory))
    report = Report(
        num_groups=len(groups),
        num_trajectories=len(trajectories),
        num_sampled=len(sampled),
        num_tokens=sum(len(turn.completion_ids) for t in sampled for turn in t.turns),
        num_unscored=sum(t.reward is None for t in trajectories),
        num_without_spread=sum(not has_spread(group) for group in groups),
        num_several_rows=sum(_num_rows(t) > 1 for t in sampled),
        num_tokens_left_out=sum(map(num_left_out, sampled)),
        blocking=[_finding(name, wrong) for name, wrong in wrong_of.items()],
        num_blocked=len(blocked),
    )
    return report, [sound for group in groups if (sound := _without(group, blocked))]


def _finding(name: str, wrong: Sequence[tuple[Trajectory, str]]) -> Finding:
    first, why = wrong[0]
    return Finding(
        name=name,
        count=len(wrong),
        message=why,
        first=_name(first),
        trajectories=[_name(trajectory) for trajectory, _ in wrong],
    )


def _name(trajectory: Trajectory) -> str:
    return f"{trajectory.problem.id}, rollout {trajectory.rollout}"


def _without(group: RolloutGroup, blocked: set[int]) -> RolloutGroup | None:
    """Return a group without what is blocked; None where nothing sampled is left of it."""
    kept = tuple(t for t in group.trajectories_G if id(t) not in blocked)
    if len(kept) == len(group.trajectories_G):
        return group
    if all(t.error is not None for t in kept):
        return None
    return replace(group, trajectories_G=kept)


def _agreement(trajectories: Sequence[Trajectory]) -> Expectation:
    """Without a trainer to compare with: everything like the first trajectory."""
    if not trajectories:
        return Expectation()
    first = trajectories[0]
    return Expectation(
        temperature=first.sampling.temperature,
        top_p=first.sampling.top_p,
        base=first.policy.base,
    )


def _num_rows(trajectory: Trajectory) -> int:
    return sum(turn.parent is None for turn in trajectory.turns)


def _own_turns(t: Trajectory) -> list[Turn]:
    """Return what is trained on: not the turns of another model, nor of another temperature."""
    return [turn for turn in t.turns if is_own(turn, t)]


def _without_tokens(t: Trajectory, expected: Expectation) -> str | None:
    if any(turn.billed is not None for turn in _own_turns(t)):
        return (
            f"Traces of an API model ('{t.policy.model}') have no tokens, so that no policy "
            "gradient can be taken on them: export its answers with `eapo traces export --as sft`, "
            "or collect with a policy whose weights are here."
        )
    return None


def _without_logprobs(t: Trajectory, expected: Expectation) -> str | None:
    if any(turn.logprobs is None and turn.billed is None for turn in _own_turns(t)):
        return (
            "Traces without logprobs cannot be trained on, since the ratio needs the behaviour "
            "policy's own: "
            "collect with an engine that returns them (scripted and chat-only engines do not)."
        )
    return None


def _broken(t: Trajectory, expected: Expectation) -> str | None:
    for turn in _own_turns(t):
        if turn.logprobs is not None and not all(map(math.isfinite, turn.logprobs)):
            return "A trace has logprobs that are not finite: it is damaged; leave it out."
        if turn.logprobs is not None and any(logprob > 1e-3 for logprob in turn.logprobs):
            return "A trace has logprobs above 0, which no distribution gives: leave it out."
    if any(turn.logprobs is None for turn in _own_turns(t)):
        return None  # has a finding of its own
    try:
        trajectory_rows(t, advantage=1.0)
    except TraceError as error:
        return str(error)
    return None


def _other_settings(t: Trajectory, expected: Expectation) -> str | None:
    settings = (
        ("temperature", t.sampling.temperature, expected.temperature),
        ("top_p", t.sampling.top_p, expected.top_p),
    )
    for name, found, wanted in settings:
        if wanted is not None and not math.isclose(found, wanted, abs_tol=1e-9):
            return (
                f"Traces must be sampled under the trainer's own settings: {name} is {found:g} "
                f"there and {wanted:g} here; train with sampling.{name}={found:g}, or collect "
                "again."
            )
    return None


def _other_model(t: Trajectory, expected: Expectation) -> str | None:
    if expected.base is not None and t.policy.base != expected.base:
        return (
            "Traces must come from the model that is trained: they were sampled by "
            f"'{t.policy.model}' (base "
            f"{t.policy.base}), not by base {expected.base}; train that model, or collect again."
        )
    return None


def _other_weights(t: Trajectory, expected: Expectation) -> str | None:
    version: PolicyVersion = t.policy
    if expected.step is not None and version.step > expected.step:
        return (
            f"Traces were sampled by a later policy (step {version.step}) than the one that is "
            "trained "
            f"(step {expected.step}): start from that policy with --policy, or collect again."
        )
    limit = expected.max_staleness_steps
    if expected.step is not None and limit is not None and expected.step - version.step > limit:
        return (
            f"Traces may be at most {limit} optimizer steps old, and these were sampled at step "
            f"{version.step} "
            f"of a policy now at step {expected.step}: raise train.max_staleness, or collect again."
        )
    if expected.weights is not None and version.weights != expected.weights:
        return (
            f"Traces were sampled by other weights ({version.weights}) than those that are trained "
            f"({expected.weights}): start from that policy with --policy, or collect again."
        )
    return None


_CHECKS: dict[str, Callable[[Trajectory, Expectation], str | None]] = {
    "without_tokens": _without_tokens,
    "without_logprobs": _without_logprobs,
    "other_model": _other_model,
    "other_settings": _other_settings,
    "other_weights": _other_weights,
    "broken": _broken,
}
