"""The limit on a live training's expert calls, so that runs can be planned for the same number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from eapo_agents.errors import RecipeError
from eapo_agents.recipe import Recipe
from eapo_agents.types import ConsultationStatus, Trajectory
from graphs.fill import RolloutPlan, RunOne
from graphs.rollout import Rollouts
from trainers.dry_run import most_calls_of_rollout

CALLED = (
    ConsultationStatus.ACCEPTED,
    ConsultationStatus.FAILED,
    ConsultationStatus.TIMEOUT,
)
"""What became of queries that reached an expert."""


@dataclass(slots=True, kw_only=True)
class CallLimit:
    """Helps as many rollouts of a step as calls are left, and withholds all further replies: the
    run is trained to its end, whatever it may spend.

    Who is helped follows from the order of the step's problems and their rollouts, and from the
    calls before. So an interrupted run helps the same ones when it continues; what it had paid for
    rollouts that were lost is paid again, and is in the ledger alone.

        most 10, at most one call a rollout, 8 called before:
        problem 0 (solo, asks, asks), problem 1 (solo, asks, asks)
        helped     -     yes   yes              -    no    no
    """

    most: int
    """Calls of the whole run."""
    a_rollout: Callable[[int], int]
    """Step -> the most calls that one rollout may make."""
    _called: dict[int, int] = field(default_factory=dict)
    """Step -> calls that its rollouts made."""

    def begin(self, step: int) -> None:
        """Count the calls of this step from 0."""
        self._called[step] = 0

    def forget(self) -> None:
        """Count all steps from 0."""
        self._called.clear()

    def count(self, step: int, trajectories: Iterable[Trajectory]) -> None:
        """Add the calls of rollouts of this step."""
        asked = (c for t in trajectories for turn in t.turns for c in turn.consultations)
        number = sum(consultation.status in CALLED for consultation in asked)
        self._called[step] = self._called.get(step, 0) + number

    def runs(self, rollouts: Rollouts, plans: Sequence[RolloutPlan], num_rollouts: int) -> RunOne:
        """Return what runs a rollout of these plans, with replies or without.

        Args:
            num_rollouts: G: rollouts of a whole group, also where some have ended before.
        """
        left = max(0, self.most - sum(self._called.values()))
        may_ask = [(p.key, r) for p in plans for r in range(p.num_solo, num_rollouts)]
        helped = set(may_ask[: left // max(1, self.a_rollout(rollouts.global_step))])
        assistance = replace(rollouts.assistance, withheld=True)
        withheld = replace(rollouts, assistance=assistance)

        async def run(plan: RolloutPlan, rollout: int, ended: Sequence[Trajectory]) -> Trajectory:
            how = rollouts if (plan.key, rollout) in helped else withheld
            return await how.run(plan, rollout, ended)

        return run


def call_limit_of(recipe: Recipe, num_processes: int) -> CallLimit | None:
    """Return the limit of a live training; None where its recipe has none.

    Raises:
        RecipeError: there are several processes, which do not know of each other's calls.
    """
    most = recipe.train.expert_calls
    if most is None:
        return None
    if num_processes > 1:
        raise RecipeError(
            f"train.expert_calls limits a live training in one process, and this has "
            f"{num_processes}: use one, or consult.budget.calls, which ends the run."
        )
    return CallLimit(most=most, a_rollout=partial(most_calls_of_rollout, recipe))
