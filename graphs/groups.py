"""Groups of rollouts under a recipe's solo share and acceptance schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.schedules import AcceptanceSchedule, coin
from eapo_agents.types import RolloutGroup, Trajectory
from graphs.rollout import SOLO, AnyGraph, RolloutPlan, run_rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistance:
    """Which members of a group may ask, and how often they are heard."""

    solo_share: float = 0.0
    acceptance: AcceptanceSchedule | None = None
    """Read here where it is adaptive or decides who works alone; the graph has it too."""
    unheard_alone: bool = False
    """Members whose coin says that nothing will be heard run without experts too, in place of
    asking in vain. The coin is that of a graph whose granularity is a rollout."""

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
    plans_P = [replace(plan, alone=range(num_solo)) for plan in plans_P]
    schedule = assistance.acceptance
    step = int(options.get("global_step", 0))
    seed = int(options["seed"])

    def under(plan: RolloutPlan, rho: float) -> RolloutPlan:
        """The plan at this rho."""
        unheard = [
            rollout
            for rollout in plan.rollouts
            if assistance.unheard_alone
            and coin(seed, plan.problem.id, step, rollout, turn=0, slot=0) >= rho
        ]
        return replace(plan, rho=rho, alone={*plan.alone, *unheard})

    if schedule is None:
        return await run_rollouts(graph, policy, plans_P, **options)
    if schedule.kind != "adaptive":
        known_P = [under(plan, schedule.rho(step)) for plan in plans_P]
        return await run_rollouts(graph, policy, known_P, **options)
    first = [replace(plan, rollouts=[r for r in plan.rollouts if r < num_solo]) for plan in plans_P]
    alone_P = await run_rollouts(graph, policy, first, **options)
    rest = []
    for plan, alone in zip(plans_P, alone_P, strict=True):
        had = [t for t in (*plan.before, *alone.trajectories_G) if t.rollout < num_solo]
        later = replace(plan, rollouts=[r for r in plan.rollouts if r >= num_solo])
        rest.append(under(later, schedule.rho(step, solo_success(had))))
    helped_P = await run_rollouts(graph, policy, rest, **options)
    return [
        replace(alone, trajectories_G=(*alone.trajectories_G, *helped.trajectories_G))
        for alone, helped in zip(alone_P, helped_P, strict=True)
    ]


def solo_success(trajectories_G: Sequence[Trajectory]) -> float | None:
    """Share of a group's members without experts that were right; None where there are none."""
    alone = [t for t in trajectories_G if t.graph == SOLO and t.correct is not None]
    return sum(bool(t.correct) for t in alone) / len(alone) if alone else None
