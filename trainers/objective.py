"""What a training step learns from its groups: group-relative rows and likelihood rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from eapo_agents.recipe import OverlongSection, PenaltySection, TrainSection
from eapo_agents.types import Problem, RolloutGroup, Trajectory
from graphs.groups import solo_success
from graphs.rollout import SOLO
from trainers.rows import (
    TrainingRow,
    group_advantages,
    group_rows,
    hint_stripped_rows,
    rehearsal_rows,
    self_distillation_rows,
    solo_answer_rows,
    solution_rows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Groups -> rows, under a recipe's `train` section."""

    solo_prompt: Callable[[Problem], Sequence[int]]
    """Token ids of a problem's tool-free prompt."""
    settings: TrainSection
    stand_in: Callable[[Trajectory], Sequence[int] | None] = lambda trajectory: None
    """What is learned in place of the answer that a reply helped to; None: that answer."""

    def advantages(self, group: RolloutGroup) -> list[float | None]:
        """One a member, of its shaped reward; None where it has none."""
        alone = solo_success(group.trajectories_G)
        rewards_G = [self._shaped(trajectory, alone) for trajectory in group.trajectories_G]
        if self.settings.baseline == "group":
            return group_advantages(rewards_G, self.settings.advantage)
        advantages_G: list[float | None] = [None] * len(rewards_G)
        for wanted in (True, False):
            members = [
                index
                for index, trajectory in enumerate(group.trajectories_G)
                if (trajectory.graph == SOLO) is wanted
            ]
            found = group_advantages([rewards_G[i] for i in members], self.settings.advantage)
            for index, advantage in zip(members, found, strict=True):
                advantages_G[index] = advantage
        return advantages_G

    def relative_rows(self, groups_P: Sequence[RolloutGroup]) -> list[TrainingRow]:
        """The policy gradient's rows."""
        return group_rows(groups_P, self.advantages)

    def likelihood_rows(self, groups_P: Sequence[RolloutGroup]) -> list[TrainingRow]:
        """Hint-stripped answers, own ones as they were, where experts are offered and under a
        teacher's eyes, and solutions to imitate."""
        rows = solution_rows(groups_P, self.solo_prompt)
        internalise = self.settings.internalise
        if internalise.rehearsal_weight:
            rows += rehearsal_rows(groups_P, weight=internalise.rehearsal_weight)
        if internalise.solo_answer_weight:
            rows += solo_answer_rows(
                groups_P,
                weight=internalise.solo_answer_weight,
                min_solo_accuracy=internalise.solo_answer_min_accuracy,
            )
        if internalise.self_distillation_weight:
            rows += self_distillation_rows(groups_P, weight=internalise.self_distillation_weight)
        if not internalise.hint_stripped_weight:
            return rows
        # positions must count all groups, so those that need it no more are emptied, not left out
        stripped = hint_stripped_rows(
            groups_P,
            self.solo_prompt,
            weight=internalise.hint_stripped_weight,
            ratio=internalise.ratio == "importance",
            stand_in=self.stand_in,
        )
        needs_it = [
            (solo_success(group.trajectories_G) or 0.0) <= internalise.max_solo_accuracy
            for group in groups_P
            for _ in group.trajectories_G
        ]
        return [*rows, *(row for row in stripped if needs_it[row.trajectory])]

    def learns_from(self, group: RolloutGroup) -> bool:
        """Whether a group gives any row."""
        return any(self.advantages(group)) or bool(self.likelihood_rows([group]))

    def has_spread(self, group: RolloutGroup) -> bool:
        """Whether the policy gradient learns from a group."""
        return any(self.advantages(group))

    def _shaped(self, trajectory: Trajectory, alone: float | None) -> float | None:
        if trajectory.reward is None:
            return None
        reward = trajectory.reward - penalty_of(trajectory, alone, self.settings.penalty)
        if self.settings.overlong is not None:
            reward += overlong_shaping(num_sampled(trajectory), self.settings.overlong)
        return reward


def penalty_of(trajectory: Trajectory, alone: float | None, penalty: PenaltySection) -> float:
    """What a trajectory's consultations cost in reward.

    Args:
        alone: its group's solo success rate, None where nobody was without experts.
    """
    if penalty.min_solo_accuracy > 0 and (alone or 0.0) < penalty.min_solo_accuracy:
        return 0.0
    asked = [c for turn in trajectory.turns for c in turn.consultations]
    return penalty.per_call * len(asked) + penalty.per_token * sum(c.tokens for c in asked)


def overlong_shaping(num_tokens: int, overlong: OverlongSection) -> float:
    """From 0 to -1 over the buffer before `tokens` (DAPO, arXiv 2503.14476, equation 13)."""
    over = num_tokens - (overlong.tokens - overlong.buffer)
    return -min(1.0, max(0.0, over / overlong.buffer))


def num_sampled(trajectory: Any) -> int:
    """Tokens that the policy sampled in a trajectory."""
    return sum(len(turn.completion_ids) for turn in trajectory.turns)
