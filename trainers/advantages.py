"""Group advantages by name, and the policy gradient's rows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from typing import cast

from eapo_agents.errors import UsageError
from eapo_agents.registry import Registry
from eapo_agents.types import RolloutGroup, Trajectory
from trainers.rows import TrainingRow, trajectory_rows

Advantage = Callable[[Sequence[float]], Sequence[float]]
"""The rewards of a group's scored rollouts (at least two, not all equal) -> one advantage each."""
ADVANTAGES = Registry[Advantage](
    "advantage",
    {
        "grpo": "trainers.advantages:grpo",
        "dr_grpo": "trainers.advantages:dr_grpo",
        "rloo": "trainers.advantages:rloo",
    },
    accept=lambda found: cast(Advantage, found) if callable(found) else None,
    rule="a function from the rewards of a group to one advantage each",
)
ADVANTAGE_EPSILON = 1e-4
"""Added to the spread of a group, as TRL does."""


def grpo(rewards: Sequence[float]) -> list[float]:
    """(r - mean) / (std + 1e-4), with the sample standard deviation, as in TRL."""
    return _centred(rewards, 1.0 / (statistics.stdev(rewards) + ADVANTAGE_EPSILON))


def dr_grpo(rewards: Sequence[float]) -> list[float]:
    """r - mean (Liu et al. 2025)."""
    return _centred(rewards, 1.0)


def rloo(rewards: Sequence[float]) -> list[float]:
    """r - mean of the others (Ahmadian et al. 2024)."""
    return _centred(rewards, len(rewards) / (len(rewards) - 1))


def _centred(rewards: Sequence[float], scale: float) -> list[float]:
    mean = statistics.fmean(rewards)
    return [(reward - mean) * scale for reward in rewards]


def group_advantages(rewards_G: Sequence[float | None], kind: str = "grpo") -> list[float | None]:
    """Return advantages over the scored rollouts of a group; None stays None and counts for
    nothing. A group with fewer than two scores, or with equal ones, gives zeros.

    Args:
        kind: a name of `ADVANTAGES`, or `package.module:function`.

    Raises:
        UsageError: there is none, or it does not give one finite number for each reward.
    """
    scored = [reward for reward in rewards_G if reward is not None]
    if len(scored) < 2 or math.isclose(max(scored), min(scored), abs_tol=1e-9):
        return [None if reward is None else 0.0 for reward in rewards_G]
    found = [float(advantage) for advantage in ADVANTAGES.find(kind)(scored)]
    if len(found) != len(scored) or not all(map(math.isfinite, found)):
        raise UsageError(
            f"The advantage '{kind}' must give one finite number for each of {len(scored)} "
            f"rewards, and gave {found}."
        )
    each = iter(found)
    return [None if reward is None else next(each) for reward in rewards_G]


def has_spread(group: RolloutGroup) -> bool:
    """Return whether the rewards of its rollouts differ."""
    return any(group_advantages([t.reward for t in group.trajectories_G]))


def group_rows(
    groups_P: Sequence[RolloutGroup],
    advantages_of: Callable[[RolloutGroup], Sequence[float | None]] | None = None,
    rows_of: Callable[[Trajectory, float], list[TrainingRow]] | None = None,
) -> list[TrainingRow]:
    """Return the group-relative rows; trajectories without a score or an advantage give none.

    Args:
        advantages_of: group -> one advantage for each rollout; GRPO's by default.
        rows_of: trajectory, advantage -> its rows; `trajectory_rows` by default.
    """
    rows = []
    for group in groups_P:
        advantages_G = (
            advantages_of(group)
            if advantages_of
            else group_advantages([t.reward for t in group.trajectories_G])
        )
        for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True):
            if not advantage:
                continue
            if rows_of is None:
                rows += trajectory_rows(trajectory, advantage=advantage)
            else:
                rows += rows_of(trajectory, advantage)
    return rows
