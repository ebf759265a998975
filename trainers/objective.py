"""What a training step learns from its groups: group-relative rows and likelihood rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from eapo_agents.errors import GradingError
from eapo_agents.recipe import OverlongSection, PenaltySection, TrainSection
from eapo_agents.types import Problem, Role, RolloutGroup, Trajectory, Turn
from graphs.groups import solo_success
from trainers.advantages import group_advantages, group_rows
from trainers.likelihood import (
    HERMES_CALLS,
    CallsOf,
    hint_stripped_rows,
    num_help_not_apart,
    rehearsal_rows,
    self_distillation_rows,
    solo_answer_rows,
    solution_rows,
)
from trainers.off_policy import RowsOf
from trainers.rows import TrainingRow, num_left_out, trajectory_rows
from trainers.teacher import taught_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Groups -> rows, under a recipe's `train` section."""

    solo_prompt: Callable[[Problem], Sequence[int]]
    """Token ids of a problem's tool-free prompt."""
    settings: TrainSection
    stand_in: Callable[[Trajectory], Sequence[int] | None] = lambda trajectory: None
    """What is learned in place of the answer that a reply helped to; None: that answer."""
    calls_of: CallsOf = HERMES_CALLS
    reward_of_turn: Callable[[Turn, Trajectory], object] | None = None
    """A user's process reward."""

    def advantages(self, group: RolloutGroup) -> list[float | None]:
        """Return one for each rollout, of its shaped reward; None where it has none, and for an
        expert's solution that is not to be compared with rollouts."""
        solo_accuracy = solo_success(group.trajectories_G)
        rewards_G = [self._shaped(trajectory, solo_accuracy) for trajectory in group.trajectories_G]
        if self.settings.baseline == "group":
            return group_advantages(rewards_G, self.settings.advantage)
        advantages_G: list[float | None] = [None] * len(rewards_G)
        for wanted in (True, False):
            alike = [
                index
                for index, trajectory in enumerate(group.trajectories_G)
                if (trajectory.role is Role.SOLO) is wanted
            ]
            found = group_advantages([rewards_G[i] for i in alike], self.settings.advantage)
            for index, advantage in zip(alike, found, strict=True):
                advantages_G[index] = advantage
        return advantages_G

    def relative_rows(self, groups_P: Sequence[RolloutGroup]) -> list[TrainingRow]:
        """Return the policy gradient's rows."""
        if self._is_taught_alone:
            return []
        if not self._has_turns:
            rows_of = RowsOf(solo_prompt=self.solo_prompt, settings=self.settings.off_policy)
            return group_rows(groups_P, self.advantages, rows_of)
        return [
            row
            for group in groups_P
            for trajectory, of_turns in zip(
                group.trajectories_G, self.turn_advantages(group), strict=True
            )
            if any(of_turns)
            for row in trajectory_rows(trajectory, advantage=of_turns[-1], of_turns=of_turns)
        ]

    def turn_advantages(self, group: RolloutGroup) -> list[list[float]]:
        """Return one for each turn of each rollout; none for rollouts without a score.

        The rollout's advantage, discounted by the turns that follow, plus the discounted sum of the
        process rewards from this turn on, which are compared over all turns of the group (as
        DeepSeekMath's process supervision does, arXiv 2402.03300, section 4.1.3). Turns follow each
        other as in the trace: branches that run side by side count as one after the other.
        """
        advantages_G = self.advantages(group)
        each = [
            self._process_reward(turn, trajectory)
            for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True)
            if advantage is not None
            for turn in trajectory.turns
        ]
        compared = iter(group_advantages(each, self.settings.advantage))
        found: list[list[float]] = []
        for trajectory, advantage in zip(group.trajectories_G, advantages_G, strict=True):
            of_turns: list[float] = []
            if advantage is not None:
                process = [next(compared) or 0.0 for _ in trajectory.turns]
                earned, later = advantage, 0.0
                for own in reversed(process):
                    later = own + self.settings.turn_discount * later
                    of_turns.insert(0, earned + later)
                    earned *= self.settings.turn_discount
            found.append(of_turns)
        return found

    @property
    def _is_taught_alone(self) -> bool:
        teacher = self.settings.teacher
        return teacher is not None and not teacher.reward

    @property
    def _has_turns(self) -> bool:
        return self.settings.turn_discount < 1 or self.reward_of_turn is not None

    def _process_reward(self, turn: Turn, trajectory: Trajectory) -> float:
        """Return a turn's own reward; 0 where there is no such function.

        Raises:
            GradingError: the function fails, or does not return a finite number.
        """
        if self.reward_of_turn is None:
            return 0.0
        try:
            found = self.reward_of_turn(turn, trajectory)
        except Exception as error:  # a user's function may raise anything
            raise GradingError(
                f"task.reward_of_turn failed on a turn of problem '{trajectory.problem.id}': "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(found, int | float) or not math.isfinite(found):
            raise GradingError(
                f"task.reward_of_turn must return a finite number, got {found!r} for a turn of "
                f"problem '{trajectory.problem.id}'."
            )
        return float(found)

    def likelihood_rows(self, groups_P: Sequence[RolloutGroup]) -> list[TrainingRow]:
        """Return the likelihood rows of every kind that the settings ask for."""
        rows = self._solution_rows(groups_P)
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
            rows += self_distillation_rows(
                groups_P, weight=internalise.self_distillation_weight, calls_of=self.calls_of
            )
        if (teacher := self.settings.teacher) is not None:
            rows += taught_rows(groups_P, weight=teacher.weight)
        if internalise.hint_stripped_weight:
            limit = internalise.max_solo_accuracy
            rows += hint_stripped_rows(
                [g for g in groups_P if (solo_success(g.trajectories_G) or 0.0) <= limit],
                self.solo_prompt,
                weight=internalise.hint_stripped_weight,
                ratio=internalise.ratio == "importance",
                stand_in=self.stand_in,
                calls_of=self.calls_of,
            )
        return rows

    def _solution_rows(self, groups_P: Sequence[RolloutGroup]) -> list[TrainingRow]:
        """Return likelihood rows of an expert's solutions: distillation's, or what is mixed in."""
        mixed = self.settings.off_policy
        if mixed.solutions == "rollout":
            return []  # they are rows of the policy gradient
        rows = solution_rows(groups_P, self.solo_prompt)
        if mixed.solutions == "none":
            return rows
        weight = mixed.solution_weight
        return [replace(row, advantage=weight, off_policy="uncertain") for row in rows]

    @property
    def gamma(self) -> float:
        """The shaping of tokens that the policy did not sample behind their prompt."""
        return self.settings.off_policy.gamma

    def left_out(self, groups_P: Sequence[RolloutGroup]) -> dict[str, float]:
        """Return counts of what gives no row though it was sampled: tokens of other models and
        temperatures, and helped answers that cannot be told from the help; and how many tokens a
        teacher judges."""
        trajectories = [t for group in groups_P for t in group.trajectories_G]
        counts = {"left_out/tokens": sum(map(num_left_out, trajectories))}
        if (teacher := self.settings.teacher) is not None:
            taught = taught_rows(groups_P, weight=teacher.weight)
            counts["teacher/tokens"] = sum(row.num_trained for row in taught)
        if self.settings.internalise.hint_stripped_weight:
            counts["left_out/helped_answers"] = num_help_not_apart(groups_P, self.calls_of)
        return {name: float(count) for name, count in counts.items()}

    def learns_from(self, group: RolloutGroup) -> bool:
        """Return whether a group gives any row."""
        return self.has_spread(group) or bool(self.likelihood_rows([group]))

    def has_spread(self, group: RolloutGroup) -> bool:
        """Return whether the policy gradient learns from a group; a teacher has something to say of
        each."""
        if self._is_taught_alone:
            return any(trajectory.turns for trajectory in group.trajectories_G)
        if self._has_turns:
            return any(map(any, self.turn_advantages(group)))
        return any(self.advantages(group))

    def _shaped(self, trajectory: Trajectory, solo_accuracy: float | None) -> float | None:
        if trajectory.reward is None:
            return None
        if trajectory.role is Role.EXPERT:  # it asked nobody, and has no length to learn
            return trajectory.reward if self.settings.off_policy.solutions == "rollout" else None
        reward = trajectory.reward - penalty_of(trajectory, solo_accuracy, self.settings.penalty)
        if self.settings.overlong is not None:
            reward += overlong_shaping(num_sampled(trajectory), self.settings.overlong)
        return reward


def penalty_of(
    trajectory: Trajectory, solo_accuracy: float | None, penalty: PenaltySection
) -> float:
    """Return what a trajectory's consultations cost in reward.

    Args:
        solo_accuracy: of its group's solo rollouts, None where it has none.
    """
    if penalty.min_solo_accuracy > 0 and (solo_accuracy or 0.0) < penalty.min_solo_accuracy:
        return 0.0
    asked = [c for turn in trajectory.turns for c in turn.consultations]
    return penalty.per_call * len(asked) + penalty.per_token * sum(c.tokens for c in asked)


def overlong_shaping(num_tokens: int, overlong: OverlongSection) -> float:
    """Return 0 to -1 over the buffer before `tokens` (DAPO, arXiv 2503.14476, equation 13)."""
    over = num_tokens - (overlong.tokens - overlong.buffer)
    return -min(1.0, max(0.0, over / overlong.buffer))


def num_sampled(trajectory: Trajectory) -> int:
    """Return how many tokens the policy sampled in a trajectory."""
    return sum(len(turn.completion_ids) for turn in trajectory.turns)
