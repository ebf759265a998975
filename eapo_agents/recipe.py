"""Recipes: what a run does. `recipe_file` reads them from YAML.

The sections are in `recipe_sections` and `recipe_training`, the rules for settings that go together
in `recipe_rules`.
"""

from __future__ import annotations

from pydantic import model_validator

from eapo_agents.old_keys import refuse_old_keys
from eapo_agents.recipe_rules import refuse_unfit, refuse_unused
from eapo_agents.recipe_sections import RecipeSections
from eapo_agents.recipe_training import (
    InternaliseSection,
    OffPolicySection,
    OverlongSection,
    PenaltySection,
    TeacherSection,
    TrainSection,
)

__all__ = [
    "InternaliseSection",
    "OffPolicySection",
    "OverlongSection",
    "PenaltySection",
    "Recipe",
    "TeacherSection",
    "TrainSection",
]


class Recipe(RecipeSections):
    """A whole run. Settings that contradict each other or have no effect are refused."""

    @model_validator(mode="before")
    @classmethod
    def _has_no_old_keys(cls, given: object) -> object:
        refuse_old_keys(given)
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        refuse_unfit(self)
        refuse_unused(self)
        return self
