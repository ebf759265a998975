"""When settings of a recipe have no effect: what a condition is, and those of the task
and its tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eapo_agents.recipe_sections import RecipeSections


@dataclass(frozen=True, slots=True)
class Condition:
    """When some settings have no effect."""

    holds: Callable[[RecipeSections], bool]
    causes: tuple[str, ...]
    """The keys that it reads."""
    keys: tuple[str, ...]
    """The settings without effect."""
    needs: str
    """What they need, for the message."""


def rewards_of(recipe: RecipeSections) -> list[str]:
    """Return the names of a recipe's rewards."""
    given = recipe.task.reward
    return [given] if isinstance(given, str) else given


_PLAYED = ("gymnasium:", "openenv:")
"""Begin the names of tasks whose answers are played."""


def _is_own(name: str) -> bool:
    """Whether a reward may name parts."""
    return ":" in name or name == "environment"


def refuse_unfit_rewards(recipe: RecipeSections) -> None:
    """Raise ValueError where the rewards and the judge of a task do not fit."""
    names, judge = rewards_of(recipe), recipe.task.judge
    if not names:
        raise ValueError("task.reward must name at least one reward, got an empty list")
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"task.reward names '{double}' twice: give it a weight instead")
    unknown = [name for name in recipe.task.reward_weights if name not in names]
    if unknown and not any(map(_is_own, names)):
        raise ValueError(
            f"task.reward_weights has '{unknown[0]}', and the rewards are {', '.join(names)}"
        )
    if "try_actions" in recipe.tools and not recipe.task.name.startswith(_PLAYED):
        raise ValueError("the tool 'try_actions' needs a task.name 'gymnasium:ID' or 'openenv:URL'")
    if "environment" in names and not recipe.task.name.startswith("verifiers:"):
        raise ValueError("the reward 'environment' needs a task.name 'verifiers:NAME'")
    if "judge" not in names:
        return
    if judge is None:
        raise ValueError("the reward 'judge' needs task.judge: set its expert, and a rubric")
    expert = recipe.consult.experts.get(judge.expert)
    if expert is None:
        known = ", ".join(recipe.consult.experts) or "none"
        raise ValueError(
            f"task.judge.expert must be one of consult.experts ({known}), got '{judge.expert}'"
        )
    if expert.offered:
        raise ValueError(
            f"the policy could ask its judge: set consult.experts.{judge.expert}.offered to false"
        )


TASK_CONDITIONS = (
    Condition(
        lambda r: "paper" not in rewards_of(r),
        ("task.reward",),
        ("task.format_reward",),
        "task.reward 'paper'",
    ),
    Condition(
        lambda r: "judge" not in rewards_of(r),
        ("task.reward",),
        ("task.judge",),
        "task.reward 'judge'",
    ),
    Condition(
        lambda r: not any(map(_is_own, rewards_of(r))),
        ("task.reward",),
        ("task.reward_timeout_s",),
        "a task.reward of your own (package.module:function)",
    ),
    Condition(
        lambda r: len(rewards_of(r)) == 1 and not any(map(_is_own, rewards_of(r))),
        ("task.reward",),
        ("task.reward_weights",),
        "a list of rewards, or one of your own that returns parts",
    ),
    Condition(
        lambda r: r.task.name in ("arithmetic", "gsm8k"),
        ("task.name",),
        ("task.fields", "task.form", "task.grader"),
        "a task.name that is a file, a data set or your own",
    ),
    Condition(
        lambda r: not r.task.name.startswith(("reasoning-gym:", "verifiers:", *_PLAYED)),
        ("task.name",),
        ("task.options",),
        "a task.name 'reasoning-gym:family', 'gymnasium:ID', 'openenv:URL' or 'verifiers:NAME'",
    ),
    Condition(
        lambda r: r.graph in ("workflow", "leap") or (r.graph == "solo" and not r.tools),
        ("graph", "tools"),
        ("consult.turns",),
        "the graph 'consult', or tools in the graph 'solo'",
    ),
    Condition(
        lambda r: r.graph in ("workflow", "leap"),
        ("graph",),
        ("tools",),
        "the graph 'consult', 'solo' or one of your own",
    ),
    Condition(
        lambda r: not r.consult.experts and not r.tools,
        ("consult.experts", "tools"),
        ("consult.turns",),
        "an expert in consult.experts, or tools",
    ),
)
