"""The reward of an answer. Source: EAPO (arXiv 2509.23730): F1 if it is above 0, else 0.1 for the
right format, else 0."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from eapo_agents.errors import GradingError, RewardWarning, UndecidedError, UsageError
from eapo_agents.grading import Grade, grade, runs_elsewhere
from eapo_agents.own_rewards import Score, Value, own_reward
from eapo_agents.recipe_conditions import rewards_of
from eapo_agents.registry import Registry
from eapo_agents.types import Problem, Trajectory

if TYPE_CHECKING:
    from eapo_agents.experts.pool import ExpertPool
    from eapo_agents.recipe import Recipe

FORMAT_REWARD = 0.1
PAPER = "paper"
Reward = Callable[[str | None, Problem], tuple[float, bool]]
"""(answer or None, problem) -> (reward, whether right)."""
JUDGE = "judge"
ENVIRONMENT = "environment"
_FIRST = 8
"""So many answers a reward may fail on before it has scored one."""


def reward(graded: Grade, *, format_reward: float = FORMAT_REWARD) -> float:
    """Return a reward from 0 to 1. For mathematics, the F1 of an equivalent answer is 1."""
    if graded.score > 0:
        return graded.score
    return format_reward if graded.formatted else 0.0


def score_text(
    text: str | None, problem: Problem, *, format_reward: float = FORMAT_REWARD
) -> tuple[float, bool]:
    """Return (reward, whether right) of a policy's answer; None, a missing answer, earns 0.

    Raises:
        GradingError: the problem's gold answer cannot be read.
        UndecidedError: the grader could not decide. The trajectory stays unscored.
    """
    graded = grade(text or "", problem)
    if graded.undecided:
        raise UndecidedError(
            f"The answer to problem '{problem.id}' could not be graded: {graded.note}."
        )
    return reward(graded, format_reward=format_reward), graded.correct


class Scored(NamedTuple):
    """What an answer earned."""

    reward: float
    right: bool
    parts: Mapping[str, float]
    """The parts of the reward by name, before they are weighed."""


@dataclass(slots=True, kw_only=True)
class TaskReward:
    """The reward of a task that is more than the paper's: functions of a user's own and a judge,
    weighed. One that fails leaves a rollout unscored."""

    parts: Mapping[str, Score]
    """By name. The first says which answers are right."""
    weights: Mapping[str, float]
    num_scored: int = 0
    num_failed: int = 0
    _told: bool = field(default=False)

    def __call__(self, text: str | None, problem: Problem) -> tuple[float, bool]:
        """Return (reward, whether right) of an answer. Blocks."""
        found = self.score_now(text, problem)
        return found.reward, found.right

    def score_now(self, text: str | None, problem: Problem) -> Scored:
        """Return what an answer earns. Blocks; raises as `score` does."""
        from eapo_agents.experts.pool_tools import BLOCKING

        return BLOCKING.run(lambda: self.score(text, problem, None))

    async def score(
        self, text: str | None, problem: Problem, trajectory: Trajectory | None
    ) -> Scored:
        """Return what an answer earns, with its trajectory where there is one.

        Raises:
            UndecidedError: a part failed or gave no score.
            GradingError: all that was asked so far has failed.
            BudgetError: the experts' budget is spent.
        """
        try:
            found = {
                name: await part(text, problem, trajectory) for name, part in self.parts.items()
            }
            given = {n: v.number for n, v in found.items() if v.number is not None}
            if not given:
                raise UndecidedError(f"No reward gave a score for problem '{problem.id}'.")
        except UndecidedError as error:
            self._failed(error)
            raise
        self.num_scored += 1
        right = next((value.right for value in found.values() if value.right is not None), False)
        total = sum(self.weights.get(name, 1.0) * value for name, value in given.items())
        return Scored(total, right, _named_parts(found))

    def _failed(self, error: UndecidedError) -> None:
        self.num_failed += 1
        if self.num_failed >= _FIRST and not self.num_scored:
            raise GradingError(
                f"The reward failed on each of its first {_FIRST} answers: {error}"
            ) from error
        if not self._told:
            self._told = True
            warnings.warn(
                f"{error} The rollout is unscored, and counted as such. More are not told of.",
                RewardWarning,
                stacklevel=2,
            )


def _named_parts(found: Mapping[str, Value]) -> dict[str, float]:
    """Return the parts of what the rewards gave: each of a list, and within it each that it names,
    before they are weighed. One reward that is one number has no parts."""
    if len(found) == 1:
        (only,) = found.values()
        return dict(only.parts)
    parts: dict[str, float] = {}
    for name, value in found.items():
        if value.number is not None:
            parts[name] = value.number
        parts |= {f"{name}/{part}": number for part, number in value.parts.items()}
    return parts


def scored(reward: Reward, text: str | None, problem: Problem) -> tuple[float | None, bool | None]:
    """Return (reward, whether right); None twice where the grader could not decide."""
    try:
        return reward(text, problem)
    except UndecidedError:
        return None, None


def reward_of(recipe: Recipe, pool: ExpertPool | None = None) -> Reward:
    """Return the reward of a recipe's task.

    Args:
        pool: what a judge is asked through.

    Raises:
        UsageError: there is none of that name, or its arguments are not those of a reward.
    """
    task = recipe.task
    names = rewards_of(recipe)
    judge: Score | None = None
    if JUDGE in names:
        from eapo_agents.judge import judge_reward

        if task.judge is None or pool is None:
            raise UsageError("The reward 'judge' needs task.judge and the recipe's experts.")
        judge = judge_reward(task.judge, pool)
    return find_reward(
        *names,
        format_reward=task.format_reward,
        timeout_s=task.reward_timeout_s,
        weights=task.reward_weights,
        system_prompt=task.system_prompt,
        judge=judge,
    )


def may_be_slow(reward: Reward, problem: Problem) -> bool:
    """Return whether scoring may take long: graders in other processes, a user's code."""
    ours = reward is score_text or isinstance(reward, partial)
    return not ours or runs_elsewhere(problem.grader)


def find_reward(
    *names: str,
    format_reward: float = FORMAT_REWARD,
    timeout_s: float = 60.0,
    weights: Mapping[str, float] | None = None,
    system_prompt: str = "",
    judge: Score | None = None,
) -> Reward:
    """Return the reward of these names: `paper`, `judge`, or a user's `package.module:function`.

    Raises:
        UsageError: there is none, or its arguments are not those of a reward.
    """
    paper = partial(score_text, format_reward=format_reward)
    if names == (PAPER,):
        return paper
    weights = weights or {}
    parts: dict[str, Score] = {}
    for name in names:
        given = REWARDS.find(name)
        if name == PAPER:
            parts[name] = _paper_part(paper)
        elif name == JUDGE:
            assert judge is not None
            parts[name] = judge
        else:
            parts[name] = own_reward(
                name, given, timeout_s=timeout_s, weights=weights, system_prompt=system_prompt
            )
    return TaskReward(parts=parts, weights=weights)


def _paper_part(paper: Reward) -> Score:
    async def score(text: str | None, problem: Problem, trajectory: Trajectory | None) -> Value:
        if may_be_slow(paper, problem):
            return Value(*await asyncio.to_thread(paper, text, problem))
        return Value(*paper(text, problem))

    return score


def is_own_reward(names: str | Sequence[str]) -> bool:
    """Return whether a task's reward is more than the paper's."""
    return names not in (PAPER, [PAPER])


def _function(found: object) -> Callable[..., object] | None:
    made = found() if isinstance(found, type) else found
    return cast(Callable[..., object], made) if callable(made) else None


REWARDS = Registry[Callable[..., object]](
    "reward",
    {
        PAPER: score_text,
        JUDGE: score_text,
        ENVIRONMENT: "eapo_agents.tasks.verifiers:reward",
    },
    accept=_function,
    rule="a function (answer, problem), (answer, problem, trajectory) or TRL's (prompts, "
    "completions, **columns)",
)
