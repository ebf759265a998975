"""Groups of rollouts under a recipe's solo share and acceptance schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import Role, RolloutGroup, Trajectory
from graphs.rollout import AnyGraph, RolloutPlan, run_rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistance:
    """Which members of a group may ask, and how often they are heard."""

    solo_share: float = 0.0
    acceptance: AcceptanceSchedule | None = None
    """Read here where it is adaptive; the graph has it too."""

    def num_solo(self, num_rollouts: int) -> int:
        """Members of a group without experts: the first ones."""
        return round(self.solo_share * num_rollouts)


NO_ASSISTANCE = Assistance()
"""Nobody is without experts, and the graph's own schedule holds."""


async def run_groups(
    graph: AnyGraph,
    policy: PolicyChatModel,
    plans_P: Sequence[RolloutPlan],
    *,
    assistance: Assistance,
    num_rollouts: int,
    **options: Any,
) -> list[RolloutGroup]:
    """`run_rollouts` with help: under an adaptive schedule the members without experts run first,
    and the others are heard the less, the more of those were right.

    Args:
        num_rollouts: G, all members of a group, also those that run at another time.
        options: those of `run_rollouts`.
    """
    num_solo = assistance.num_solo(num_rollouts)
    plans_P = [replace(plan, num_solo=num_solo) for plan in plans_P]
    schedule = assistance.acceptance
    if schedule is None or schedule.kind != "adaptive":
        return await run_rollouts(graph, policy, plans_P, **options)
    first = [replace(plan, rollouts=[r for r in plan.rollouts if r < num_solo]) for plan in plans_P]
    alone_P = await run_rollouts(graph, policy, first, **options)
    step = int(options.get("global_step", 0))
    rest = [
        replace(
            plan,
            rollouts=[r for r in plan.rollouts if r >= num_solo],
            rho=schedule.rho(step, solo_success((*plan.before, *alone.trajectories_G))),
        )
        for plan, alone in zip(plans_P, alone_P, strict=True)
    ]
    helped_P = await run_rollouts(graph, policy, rest, **options)
    return [
        replace(alone, trajectories_G=(*alone.trajectories_G, *helped.trajectories_G))
        for alone, helped in zip(alone_P, helped_P, strict=True)
    ]


def solo_success(trajectories_G: Sequence[Trajectory]) -> float | None:
    """Share of a group's members without experts that were right; None where there are none."""
    alone = [t for t in trajectories_G if t.role is Role.SOLO and t.correct is not None]
    return sum(bool(t.correct) for t in alone) / len(alone) if alone else None
