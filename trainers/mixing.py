"""Rollouts with an expert's solutions among them (LUFFY, CHORD).

An expert's text becomes tokens by the policy's tokenizer here and in distillation, and nowhere else
in training: the policy sampled none of it, so there are no tokens to keep.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from eapo_agents.types import RolloutGroup, Trajectory
from trainers.distillation import ExpertSolutions
from trainers.sources import LiveRollouts


@dataclass(slots=True, kw_only=True)
class MixedSolutions:
    """A `RolloutSource` of live groups, each with the first expert's solution of its problem behind
    the rollouts, where that is right.

    Each problem is solved once in a run, and its solution used in later steps again.
    """

    live: LiveRollouts
    solutions: ExpertSolutions

    def __len__(self) -> int:
        return len(self.live)

    def groups(
        self, items: Sequence[int], step: int, elsewhere: Collection[int] = ()
    ) -> list[RolloutGroup]:
        groups = self.live.groups(items, step, elsewhere)
        solved = self.solutions.once([group.problem for group in groups], step)
        return [_joined(group, solved.get(group.problem.id)) for group in groups]


def _joined(group: RolloutGroup, solution: Trajectory | None) -> RolloutGroup:
    if solution is None or not solution.correct:
        return group
    return replace(group, trajectories_G=(*group.trajectories_G, solution))
