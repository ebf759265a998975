"""Groups of rollouts under a recipe's solo share and acceptance schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import Role, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Assistance:
    """Which rollouts of a group may ask, and how often they get a reply."""

    solo_share: float = 0.0
    acceptance: AcceptanceSchedule | None = None
    """Read here where it is adaptive; the graph has it too."""
    withheld: bool = False
    """Every reply is withheld, whatever the schedule says."""

    def num_solo(self, num_rollouts: int) -> int:
        """Return how many rollouts of a group run without experts: the first ones."""
        return round(self.solo_share * num_rollouts)

    @property
    def solo_first(self) -> bool:
        """Whether the solo rollouts end before the others begin: under an adaptive schedule the
        others are accepted the less, the more of those were right."""
        return self.acceptance is not None and self.acceptance.kind == "adaptive"

    def rho(self, step: int, ended: Sequence[Trajectory]) -> float | None:
        """Return the acceptance probability that takes the place of the graph's own; None under a
        schedule of the step alone.

        Args:
            ended: the group's rollouts so far, all of its solo ones among them.
        """
        if self.withheld:
            return 0.0
        if self.acceptance is None or not self.solo_first:
            return None
        return self.acceptance.rho(step, solo_success(ended))


NO_ASSISTANCE = Assistance()
"""Every rollout has experts, and the graph's own schedule holds."""


def solo_success(trajectories_G: Sequence[Trajectory]) -> float | None:
    """Return the share of a group's solo rollouts that were right; None where there are none."""
    solo = [t for t in trajectories_G if t.role is Role.SOLO and t.correct is not None]
    return sum(bool(t.correct) for t in solo) / len(solo) if solo else None
