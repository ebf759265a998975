"""Warm starts: scripted episodes, and a policy that has learned their form."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError
from eapo_agents.policy.fresh import FRESH, fresh_model_of, read_chat_template
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file, save_recipe
from eapo_agents.runs.loading import load_agent, refuse_untrained, warm_start_problems
from eapo_agents.runs.lock import locked
from eapo_agents.types import Problem

if TYPE_CHECKING:
    from graphs.agent import Agent

WARM = "warm"
"""Folder of the warm start that a training began with."""
_TAUGHT = "taught"
"""Says that it is whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmStarted:
    """What a warm start left."""

    policy: str
    """The warm-started policy's folder."""
    episodes: int
    steps: int
    """Number of optimizer steps that the weights have had."""
    weights: str
    """Fingerprint of the weights."""
    seconds: float


def warm_start(recipe: Recipe, out: Path, *, progress: Progress = SILENT) -> WarmStarted:
    """Teach the formats of calls and answers, and write the policy into `out`.

    Raises:
        RecipeError: the recipe does not say what to teach.
        ModelError: the fresh model's chat template cannot be used.
        UsageError: another process works in the folder.
    """
    refuse_untrained(recipe)
    started = time.perf_counter()
    problems = warm_start_problems(recipe, progress)
    from trainers.warm_start_episodes import refuse_misfit

    refuse_misfit(recipe, problems)
    if recipe.policy.fresh is not None and recipe.policy.fresh.chat_template is not None:
        read_chat_template(recipe.policy.fresh.chat_template)  # refused before a folder is made
    with locked(out):
        save_recipe(recipe, out, progress)
        agent = load_agent(with_fresh_model(recipe, problems, out), progress)
        agent.pool.open(expert_file(recipe, out), "warm-start")
        policy, num_episodes = warm_start_into(agent, problems, out, progress)
    version = agent.engine.policy_version
    return WarmStarted(
        policy=str(policy),
        episodes=num_episodes,
        steps=version.step,
        weights=version.weights,
        seconds=time.perf_counter() - started,
    )


def with_fresh_model(recipe: Recipe, problems: Sequence[Problem], folder: Path) -> Recipe:
    """Return the recipe with its fresh model in the folder, if policy.fresh asks for one. The
    model is made once."""
    fresh = recipe.policy.fresh
    if fresh is None:
        return recipe
    model = folder / FRESH
    if not (model / "config.json").exists():
        from eapo_agents.policy.fresh import make_model
        from trainers.warm_start_episodes import script_texts

        settings = fresh.model_dump()
        if fresh.chat_template is not None:
            settings["chat_template"] = read_chat_template(fresh.chat_template)
        try:
            texts = script_texts(recipe, problems, settings["chat_template"])
            make_model(model, texts, **settings, seed=recipe.seed)
        except ValueError as error:
            raise RecipeError(f"In policy.fresh: {error}") from error
    made = recipe.policy.model_copy(update={"model": str(model), "adapter": None})
    return recipe.model_copy(update={"policy": made})


def keep_fresh_model(recipe: Recipe, folder: Path) -> None:
    """Copy the fresh model of the recipe's policy, if it is one, to where the policies that are
    trained from it find it.

    Raises:
        ModelError: the named policy is not of such a model.
    """
    if recipe.policy.awaits_model:
        made = fresh_model_of(recipe.policy.adapter)
        shutil.copytree(made, folder / FRESH, dirs_exist_ok=True)


def taught(recipe: Recipe, folder: Path, progress: Progress = SILENT) -> Recipe:
    """Return the recipe of a training in `folder` with the policy that it begins with.

    That is another only where the model is made anew: then it is made in the folder and learns the
    formats there, or is that of the policy which the recipe names.

    Raises:
        RecipeError: the recipe does not say what to teach.
        ModelError: the named policy is not of such a model.
    """
    policy = recipe.policy
    if not policy.awaits_model:
        return recipe
    warm, model = folder / WARM, folder / FRESH
    if policy.adapter is not None:
        keep_fresh_model(recipe, folder)
        found = {"model": str(model)}
    else:
        if not (warm / _TAUGHT).exists():
            warm_start(recipe, warm, progress=progress)
            shutil.copytree(warm / FRESH, model, dirs_exist_ok=True)
            (warm / _TAUGHT).touch()
        found = {"model": str(model), "adapter": str(warm / "policy")}
    return recipe.model_copy(update={"policy": policy.model_copy(update=found)})


def warm_start_into(
    agent: Agent, problems: Sequence[Problem], folder: Path, progress: Progress = SILENT
) -> tuple[Path, int]:
    """Teach an agent; return the warm-started policy's folder and the number of episodes."""
    from eapo_agents.policy.models import save_policy
    from trainers.run import POLICY_FOLDER, add_adapter
    from trainers.warm_start import warm_start as teach
    from trainers.warm_start_episodes import scripted_episodes

    episodes = scripted_episodes(agent, problems, progress)
    add_adapter(agent)
    with progress.bar("Warm start (steps)", None) as bar:
        teach(agent, episodes, folder, bar.at)
    version = agent.engine.policy_version
    policy = folder / POLICY_FOLDER
    save_policy(agent.model, policy, base=version.base, step=version.step)
    return policy, len(episodes)
