"""A run's folder: its recipe, the history of its steps and evaluations, its ledger."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError
from eapo_agents.files import write_atomically
from eapo_agents.progress import IS_MAIN, SILENT, Progress

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe

RECIPE = "recipe.yaml"
EXPERTS = "experts.db"
TRACES = "traces.db"
STEPS = "steps.jsonl"
EVALS = "evals.jsonl"
VERDICTS = "verdicts.jsonl"
"""Of each evaluation on the way: which problems were right, by condition."""
RESULT = "train.json"
"""What a training run left."""


def save_recipe(recipe: Recipe, folder: Path, progress: Progress = SILENT) -> None:
    """Save the resolved recipe with the run, and print one line about it.

    Raises:
        RecipeError: the folder holds a run of another recipe. Only the number of steps and the
            experts' budget may change.
        ModelError: the recipe's device is not here. A recipe that was kept with it would refuse the
            right one.
    """
    if recipe.policy.device != "cpu":
        from eapo_agents.policy.devices import refuse_device

        refuse_device(recipe.policy.device)
    from eapo_agents.recipe_file import fixed_part, load_recipe, to_yaml

    saved = folder / RECIPE
    if saved.exists() and fixed_part(load_recipe(saved)) != fixed_part(recipe):
        raise RecipeError(
            f"'{folder}' holds a run of another recipe (its {RECIPE}): use another --out, or "
            "delete the folder to start again."
        )
    if IS_MAIN:
        write_atomically(saved, to_yaml(recipe))
    progress.say(f"{in_a_line(recipe)}. Its settings are in {saved}.")


def refuse_other_recipe(recipe: Recipe, folder: Path) -> None:
    """Raise RecipeError if the folder holds a run of another recipe."""
    from eapo_agents.recipe_file import fixed_part, load_recipe

    saved = folder / RECIPE
    if saved.exists() and fixed_part(load_recipe(saved)) != fixed_part(recipe):
        raise RecipeError(
            f"'{folder}' holds a run of another recipe (its {RECIPE}): give another --out, or "
            "delete the folder to start again."
        )


def in_a_line(recipe: Recipe) -> str:
    """Return a recipe's name, model, task and seed, for a screen."""
    policy = recipe.policy
    model = policy.api_model or ("made anew" if policy.awaits_model else policy.model)
    return (
        f"Recipe {recipe.name}: model {model}, task {recipe.task.name}, "
        f"graph {recipe.graph}, method {recipe.train.method}, seed {recipe.seed}"
    )


def expert_file(recipe: Recipe, folder: Path) -> Path:
    """Return the file for a run's ledger and stored replies: the recipe's, or one in the folder."""
    return Path(recipe.consult.expert_store or folder / EXPERTS)


def store_folder(store_at: str) -> Path:
    """Return the folder of a trace store; `runs` for one on a server."""
    return Path("runs") if "://" in store_at else Path(store_at).parent


def append_line(file: Path, facts: Mapping[str, object]) -> None:
    """Add a line to a history. A line that was cut off before stays on its own line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            whole = lines.read(1) == b"\n"
            lines.write(b"" if whole else b"\n")
        lines.write(json.dumps(facts).encode() + b"\n")


def read_history(folder: Path, name: str = STEPS) -> list[dict[str, float]]:
    """Return all steps, also those before an interruption. Of a step that was run again, return
    the last line."""
    by_step: dict[int, dict[str, float]] = {}
    for line in (folder / name).read_text().splitlines():
        try:
            step = json.loads(line)
        except ValueError:
            continue  # cut off by an interruption; the step was run again
        by_step[int(step["step"])] = step
    return [by_step[number] for number in sorted(by_step)]
