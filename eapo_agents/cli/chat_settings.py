"""What a person may change of a recipe for their chat. The changed recipe is what is recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from eapo_agents.errors import UsageError
from eapo_agents.recipe import Recipe


def with_system_prompt(recipe: Recipe, text: str) -> Recipe:
    """Return the recipe with another system prompt.

    Raises:
        UsageError: the recipe's graph makes its input itself.
    """
    if recipe.inputs is not None:
        raise UsageError(
            f"The recipe's `inputs` ({recipe.inputs}) makes the first messages of this graph, so a "
            "system prompt would have no effect: change that function."
        )
    task = recipe.task.model_copy(update={"system_prompt": text})
    return recipe.model_copy(update={"task": task})


def with_temperature(recipe: Recipe, temperature: float) -> Recipe:
    """Return the recipe with another sampling temperature.

    Raises:
        UsageError: it is below 0 or not finite.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UsageError(f"/temp takes a number from 0 (greedy), got {temperature:g}.")
    return recipe.model_copy(update={"sampling": replace(recipe.sampling, temperature=temperature)})


def names_in(text: str) -> list[str]:
    """Return the names in `a,b`."""
    return [name.strip() for name in text.split(",") if name.strip()]


def with_experts(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Return the recipe with these experts to ask. Their fallbacks stay, and are not offered.

    Raises:
        UsageError: there is no such expert, or none is named.
    """
    known = recipe.consult.experts
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"There is no expert '{unknown[0]}'" if unknown else "No expert is named"
        raise UsageError(
            f"{what}: this recipe has {', '.join(known) or 'none'}. Name some, such as "
            f"{','.join(list(known)[:2]) or 'a,b'}; /solo answers without any."
        )
    kept = dict.fromkeys(names)
    judge = recipe.task.judge
    following = [known[name].fallback for name in names] + [judge.expert if judge else None]
    while following:
        name = following.pop()
        if name is not None and name in known and name not in kept:
            kept[name] = None
            following.append(known[name].fallback)
    experts = {
        name: section if name in names else section.model_copy(update={"offered": False})
        for name, section in known.items()
        if name in kept
    }
    consult = recipe.consult.model_copy(update={"experts": experts})
    return recipe.model_copy(update={"consult": consult})
