"""What runs load: agents, problems and logged groups."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from eapo_agents.errors import RecipeError, TraceError
from eapo_agents.policy.models import reach_model
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.types import Problem, RolloutGroup, has_no_tokens

if TYPE_CHECKING:
    from eapo_agents.experts.pool import ExpertPool
    from eapo_agents.store import TraceStore
    from graphs.agent import Agent


def quiet_libraries() -> None:
    """Keep the libraries' chatter off the screen; errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|trl|peft|accelerate)")


def load_agent(recipe: Recipe, progress: Progress = SILENT) -> Agent:
    """Load the recipe's agent."""
    api_model = recipe.policy.api_model
    loading = "Reaching" if api_model else "Loading"
    with progress.status(f"{loading} {api_model or recipe.policy.model} ..."):
        if api_model is None:
            if not recipe.policy.awaits_model:
                reach_model(recipe.policy.model)  # a missing one is told before seconds of imports
            quiet_libraries()
        from graphs.agent import load_agent as load

        return load(recipe)


def problems_of(
    recipe: Recipe, split: str, limit: int | None, progress: Progress = SILENT
) -> list[Problem]:
    """Return the recipe's problems of one split, at most `limit`; say so where there are fewer."""
    task = recipe.task
    found = task.load(split, recipe.seed)
    if limit is not None and len(found) < limit:
        progress.say(
            f"The task {task.name} has {len(found)} problems in its split '{split}': all are "
            f"used, where the recipe allows {limit}."
        )
    return found[:limit]


def warm_start_problems(recipe: Recipe, progress: Progress = SILENT) -> list[Problem]:
    """Return the problems that the warm start's episodes are about.

    Raises:
        RecipeError: the recipe does not say what to teach.
        TaskError: a problem to practise on is held out.
    """
    settings = recipe.warm_start
    if settings is None:
        raise RecipeError("The recipe has no warm_start section: add one, it says what to teach.")
    if settings.practice is None:
        return problems_of(recipe, "train", settings.problems, progress)
    from eapo_agents.tasks import HELD_OUT_SHARE, refuse_overlap

    other = {"name": settings.practice, "held_out": HELD_OUT_SHARE}
    practised = recipe.model_copy(update={"task": recipe.task.model_copy(update=other)})
    found = problems_of(practised, "all", settings.problems, progress)
    if not recipe.task.allow_overlap:
        trained_on = {problem.id for problem in recipe.task.load("train", recipe.seed)}
        every = recipe.task.load("all", recipe.seed)
        held_out = [problem for problem in every if problem.id not in trained_on]
        refuse_overlap(found, held_out, f"warm_start.practice '{settings.practice}'")
    return found


def refuse_people(pool: ExpertPool, command: str) -> None:
    """Raise RecipeError if an expert is a person: nobody is there to reply."""
    for expert in pool.experts:
        if expert.interactive:
            raise RecipeError(
                f"The expert '{expert.name}' is a person, and nobody can be asked during "
                f"`eapo {command}`: use `eapo chat` or `eapo run`, or remove the expert."
            )


def refuse_untrained(recipe: Recipe) -> None:
    """Refuse what a training would find out only after its warm start.

    Raises:
        ModelError: the policy is an API model, which cannot be trained.
        RecipeError: a tracker is not known, or not installed.
    """
    if recipe.policy.api_model is not None:
        from eapo_agents.policy.api_model import refuse_training

        raise refuse_training(recipe.policy.api_model)
    _refuse_missing_trackers(recipe.train.report_to)


def _refuse_missing_trackers(names: Sequence[str]) -> None:
    """Raise RecipeError where `train.report_to` names what transformers cannot report to here."""
    others = [name for name in names if name not in ("tensorboard", "none")]
    if not others:
        return  # transformers takes seconds to import
    from transformers.integrations.integration_utils import (
        INTEGRATION_TO_CALLBACK,
        get_reporting_integration_callbacks,
    )

    for name in others:
        if name not in INTEGRATION_TO_CALLBACK:
            raise RecipeError(
                f"train.report_to has '{name}', which is no tracker. There are "
                f"{', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
            )
        try:
            for callback in get_reporting_integration_callbacks([name]):
                callback()
        except (ImportError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"train.report_to has '{name}', which cannot be used here: {error} "
                "The extra `trackers` brings wandb, mlflow and trackio."
            ) from error


def logged_groups(store: TraceStore, run_id: str | None) -> list[RolloutGroup]:
    """Return the groups of one run, or of all a store's collections, or of its rated chats.

    Raises:
        TraceError: the store has no such run, or nothing to train on.
    """
    runs = list(store.runs())
    known = [run.run_id for run in runs if run.kind in ("collect", "train", "chat")]
    if run_id is not None and run_id not in known:
        raise TraceError(
            f"The store has no collection '{run_id}': it has {', '.join(known) or 'none'}."
        )
    of_kind = {kind: [r.run_id for r in runs if r.kind == kind] for kind in ("collect", "chat")}
    wanted: Sequence[str] = [run_id] if run_id else of_kind["collect"] or of_kind["chat"]
    groups = [group for name in wanted for group in store.groups(run_id=name)]
    if not groups:
        raise TraceError(
            "The store has no collected trajectories to train on: run `eapo collect` into it first."
        )
    sampled = [t for group in groups for t in group.trajectories_G if t.turns]
    if sampled and all(has_no_tokens(t.turns) for t in sampled):
        raise TraceError(
            f"The traces are those of an API model, '{sampled[0].policy.model}', and have no "
            "tokens, so that no policy gradient can be taken on them: export its answers with "
            "`eapo traces export --as sft`, or collect with a policy whose weights are here."
        )
    return groups
