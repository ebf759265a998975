"""Groups of rollouts with what training makes of them: shaped rewards and advantages."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from eapo_agents.errors import EapoError, UsageError
from eapo_agents.runs.view.keys import learn_keys
from eapo_agents.types import Problem, Role, RolloutGroup, Trajectory

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from eapo_agents.store.browsing import StoreBrowser
    from eapo_agents.store.table_rows import StoredTrajectory
    from trainers.objective import Objective

GROUPS_OF_A_PAGE = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Earned:
    """What a rollout earned."""

    reward: float | None
    """The task's."""
    shaped: float | None
    """What is compared within the group: less the penalty for calls, less the one for length."""
    penalty: float
    overlong: float
    advantage: float | None
    of_turns: Sequence[float] = ()
    """The advantage of each turn, where they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group for a page."""

    key: str
    problem: Problem
    rollouts: Sequence[StoredTrajectory]
    earned: Sequence[Earned]
    """In the same order."""
    told: str = ""
    """Why there are no advantages, or what they leave out."""

    @property
    def rewards(self) -> list[float]:
        """Return the rewards of the scored rollouts."""
        found = (stored.trajectory.reward for stored in self.rollouts)
        return [reward for reward in found if reward is not None]

    @property
    def mean(self) -> float | None:
        """Return their mean."""
        return statistics.fmean(self.rewards) if self.rewards else None

    @property
    def spread(self) -> float | None:
        """Return their sample standard deviation; None for fewer than two."""
        return statistics.stdev(self.rewards) if len(self.rewards) > 1 else None

    @property
    def num_right(self) -> int:
        """Return how many rollouts are right."""
        return sum(bool(stored.trajectory.correct) for stored in self.rollouts)

    @property
    def num_solo(self) -> int:
        """Return how many had no experts."""
        return sum(stored.trajectory.role is Role.SOLO for stored in self.rollouts)

    @property
    def highest_advantage(self) -> float | None:
        """Return the largest advantage; None where there is none."""
        found = [one.advantage for one in self.earned if one.advantage is not None]
        return max(found) if found else None

    def of(self, trajectory_id: int) -> Earned | None:
        """Return what one rollout earned."""
        for stored, earned in zip(self.rollouts, self.earned, strict=True):
            if stored.id == trajectory_id:
                return earned
        return None


@lru_cache(maxsize=64)
def _checked(text: str) -> Recipe | None:
    from pydantic import ValidationError

    from eapo_agents.recipe import Recipe

    try:
        return Recipe.model_validate_json(text)
    except (ValidationError, EapoError):
        return None


def recipe_of(described: Mapping[str, Any]) -> Recipe | None:
    """Return a run's recipe; None where the run was described otherwise, or by an older version.

    The keys that it names are read where they are set, so that no page shows one.
    """
    import json

    learn_keys(described)
    return _checked(json.dumps(described, sort_keys=True, default=str))


def needs_turns(recipe: Recipe | None) -> bool:
    """Return whether advantages depend on what the turns hold."""
    if recipe is None:
        return False
    train = recipe.train
    shaped = train.penalty.per_call or train.penalty.per_token or train.overlong is not None
    return bool(shaped) or train.turn_discount < 1


def group_view(
    rollouts: Sequence[StoredTrajectory], recipe: Recipe | None, *, trained: bool = True
) -> GroupView:
    """Return a group with its advantages, as the recipe's trainer compares them.

    Args:
        trained: whether training compares these rollouts. Those of an evaluation it does not.
    """
    first = rollouts[0]
    group = RolloutGroup(
        problem=first.trajectory.problem,
        trajectories_G=tuple(stored.trajectory for stored in rollouts),
    )
    earned: Sequence[Earned]
    told = ""
    if not trained:
        earned = [_unearned(stored.trajectory) for stored in rollouts]
    else:
        try:
            earned, told = _earned(group, recipe)
        except EapoError as error:
            earned, told = [_unearned(stored.trajectory) for stored in rollouts], str(error)
    return GroupView(
        key=first.group_key,
        problem=group.problem,
        rollouts=rollouts,
        earned=earned,
        told=told,
    )


def _unearned(trajectory: Trajectory) -> Earned:
    return Earned(reward=trajectory.reward, shaped=None, penalty=0.0, overlong=0.0, advantage=None)


def _earned(group: RolloutGroup, recipe: Recipe | None) -> tuple[list[Earned], str]:
    from graphs.groups import solo_success
    from trainers.objective import num_sampled, overlong_shaping, penalty_of

    if recipe is None:
        from trainers.advantages import group_advantages

        found = group_advantages([t.reward for t in group.trajectories_G])
        earned = [
            Earned(reward=t.reward, shaped=t.reward, penalty=0.0, overlong=0.0, advantage=a)
            for t, a in zip(group.trajectories_G, found, strict=True)
        ]
        return earned, "The run has no recipe that this version reads: advantages are GRPO's."
    if ":" in recipe.train.advantage:
        raise UsageError(
            f"The recipe's advantage is a function of yours ({recipe.train.advantage}), and a page "
            "runs no user code: advantages are left out."
        )
    objective = objective_of_recipe(recipe)
    solo_accuracy = solo_success(group.trajectories_G)
    advantages_G = objective.advantages(group)
    by_turn = recipe.train.turn_discount < 1
    turns_G = objective.turn_advantages(group) if by_turn else [[] for _ in advantages_G]
    earned = []
    for t, advantage, of_turns in zip(group.trajectories_G, advantages_G, turns_G, strict=True):
        overlong = recipe.train.overlong
        shaping = 0.0 if overlong is None else overlong_shaping(num_sampled(t), overlong)
        penalty = penalty_of(t, solo_accuracy, recipe.train.penalty)
        earned.append(
            Earned(
                reward=t.reward,
                shaped=None if t.reward is None else t.reward - penalty + shaping,
                penalty=penalty,
                overlong=shaping,
                advantage=advantage,
                of_turns=of_turns,
            )
        )
    told = ""
    if recipe.task.reward_of_turn is not None:
        told = "The recipe's process rewards are not in these advantages: a page runs no user code."
    return earned, told


def objective_of_recipe(recipe: Recipe) -> Objective:
    """Return what a recipe's training learns from groups, for what needs no prompt."""
    from trainers.objective import Objective

    def no_prompt(problem: Problem) -> Sequence[int]:
        raise EapoError("A prompt is rendered with the model's tokenizer only.")

    return Objective(solo_prompt=no_prompt, settings=recipe.train)


def groups_page(
    store: StoreBrowser, run_id: str, keys: Sequence[str], recipe: Recipe | None, *, trained: bool
) -> list[GroupView]:
    """Return groups without their turns, unless their advantages depend on them."""
    if needs_turns(recipe):
        found = {key: store.group(run_id, key) for key in keys}
    else:
        found = store.groups_without_turns(run_id, keys)
    return [group_view(found[key], recipe, trained=trained) for key in keys if found.get(key)]
