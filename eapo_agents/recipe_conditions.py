"""When settings of a recipe have no effect: what a condition is, and those of the task."""

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


TASK_CONDITIONS = (
    Condition(
        lambda r: r.task.reward != "paper",
        ("task.reward",),
        ("task.format_reward",),
        "task.reward 'paper'",
    ),
    Condition(
        lambda r: r.task.name in ("arithmetic", "gsm8k"),
        ("task.name",),
        ("task.fields", "task.form", "task.grader"),
        "a task.name that is a file, a data set or your own",
    ),
    Condition(
        lambda r: not r.task.name.startswith("reasoning-gym:"),
        ("task.name",),
        ("task.options",),
        "a task.name 'reasoning-gym:family'",
    ),
)
