"""What the commands do. It, `evaluation` and `demo` alone import every package."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.progress import (
    EVALS,
    IS_MAIN,
    append_line,
    console,
    progress_bar,
    read_history,
    training_bar,
)
from eapo_agents.errors import RecipeError
from eapo_agents.files import write_atomically
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import fixed_part, load_recipe, to_yaml
from eapo_agents.types import RolloutGroup

EXPERTS = "experts.db"
FRESH = "fresh"
"""Folder of the model that a recipe wants made anew, beside the warm start."""


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Prints the resolved recipe and saves it with the run.

    Raises:
        RecipeError: the folder holds a run of another recipe; only its number of steps may change,
            and what experts may cost.
    """
    text = to_yaml(recipe)
    saved = folder / "recipe.yaml"
    if saved.exists() and fixed_part(load_recipe(saved)) != fixed_part(recipe):
        raise RecipeError(
            f"'{folder}' holds a run of another recipe (its recipe.yaml): "
            "give another --out, or delete the folder to start anew."
        )
    console.print(text.rstrip(), style="dim", markup=False)
    write_atomically(folder / "recipe.yaml", text)


def quiet_libraries() -> None:
    """Keeps the libraries' chatter off the screen; errors still show."""
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(torch|trl|peft|accelerate)")


def load_agent(recipe: Recipe) -> Any:
    """Loads the recipe's agent, with a word on what is going on."""
    with console.status(f"Loading {recipe.policy.model} ..."):
        quiet_libraries()
        from graphs.agent import load_agent as load

        return load(recipe)


def expert_file(recipe: Recipe, folder: Path) -> Path:
    """Where ledger and stored replies of a run go: the recipe's file, or one in the folder."""
    return Path(recipe.consult.expert_store or folder / EXPERTS)


def store_folder(store_at: str) -> Path:
    """The folder of a trace store; `runs` for one on a server."""
    return Path("runs") if "://" in store_at else Path(store_at).parent


def refuse_people(pool: Any, command: str) -> None:
    """Raises RecipeError where an expert is a person: nobody is there to reply."""
    for expert in pool.experts:
        if expert.interactive:
            raise RecipeError(
                f"The expert '{expert.name}' is a person, and nobody can be asked during "
                f"`eapo {command}`: use `eapo chat` or `eapo run`, or take it out."
            )


def warm_start(recipe: Recipe, out: Path, *, as_json: bool) -> None:
    """Scripted episodes, and a policy that has learned their form."""
    if recipe.warm_start is None:
        raise RecipeError("The recipe has no warm_start section, which says what to teach: add it.")
    started = time.perf_counter()
    problems = problems_of(recipe, "train", recipe.warm_start.problems)
    save_recipe(recipe, out)
    agent = load_agent(with_fresh_model(recipe, problems, out))
    policy, num_episodes = warm_start_into(agent, problems, out)
    summary = {
        "policy": str(policy),
        "episodes": num_episodes,
        "steps": agent.engine.policy_version.step,
        "weights": agent.engine.policy_version.weights,
        "seconds": time.perf_counter() - started,
    }
    show(summary, as_json)


def with_fresh_model(recipe: Recipe, problems: Any, folder: Path) -> Recipe:
    """The recipe with the model that it wants made anew, in the folder; made once."""
    fresh = recipe.policy.fresh
    if fresh is None:
        return recipe
    model = folder / FRESH
    if not (model / "config.json").exists():
        from eapo_agents.policy.fresh import make_model
        from trainers.warm_start_episodes import script_texts

        texts = script_texts(recipe, problems)
        try:
            make_model(model, texts, **fresh.model_dump(), seed=recipe.seed)
        except ValueError as error:
            raise RecipeError(f"In policy.fresh: {error}") from error
    settings = recipe.policy.model_copy(update={"model": str(model), "adapter": None})
    return recipe.model_copy(update={"policy": settings})


def warm_start_into(agent: Any, problems: Any, folder: Path) -> tuple[Path, int]:
    """Returns the warm-started policy's folder and the number of episodes."""
    from eapo_agents.policy.models import save_policy
    from trainers.run import POLICY_FOLDER, add_adapter
    from trainers.warm_start import warm_start as teach
    from trainers.warm_start_episodes import scripted_episodes

    episodes = scripted_episodes(agent, problems)
    add_adapter(agent)
    with progress_bar("Warm start (steps)", None) as bar:
        teach(agent, episodes, folder, bar.at)
    version = agent.engine.policy_version
    policy = folder / POLICY_FOLDER
    save_policy(agent.model, policy, base=version.base, step=version.step)
    return policy, len(episodes)


def problems_of(recipe: Recipe, split: str, limit: int | None) -> Any:
    """The recipe's problems of one split."""
    from eapo_agents.tasks import load_problems

    return load_problems(recipe.task.name, split=split, limit=limit, seed=recipe.seed)


def train(
    recipe: Recipe, out: Path, from_traces: str | None, run_id: str | None, *, as_json: bool
) -> None:
    """Live, or from logged traces."""
    from eapo_agents.store import TraceStore

    started = time.perf_counter()
    if from_traces is not None:
        with TraceStore.open(from_traces) as store:
            groups = logged_groups(store, run_id)
        agent = load_agent(recipe)
        from trainers.run import usable_groups

        usable = usable_groups(agent, groups)
        save_recipe(recipe, out)
        folder = train_logged_into(agent, usable, out)
    else:
        if recipe.train.method in ("logged", "none"):
            raise RecipeError(
                f"train.method is '{recipe.train.method}', and a live run learns from rollouts or "
                "by distillation: give --from-traces with a store that `eapo collect` made, or "
                "use `eapo study`, which collects by itself."
            )
        problems = problems_of(recipe, "train", None)
        agent = load_agent(recipe)
        from trainers.run import refuse_few_problems

        refuse_few_problems(recipe, problems)
        refuse_people(agent.pool, "train")
        save_recipe(recipe, out)
        with TraceStore.open(str(out / "traces.db"), create=True) as store:
            experts = expert_file(recipe, out)
            folder = train_live_into(agent, problems, store, "train", out, experts)
    history = read_history(out)
    summary = {
        "policy": str(folder),
        "steps": agent.engine.policy_version.step,
        "weights": agent.engine.policy_version.weights,
        "rollouts": round(sum(step["rollouts"] for step in history)),
        "expert_calls": round(sum(step["experts/calls"] for step in history)),
        "expert_calls_withheld": round(sum(step["experts/withheld"] for step in history)),
        "sampled_tokens": round(sum(step["sampled_tokens"] for step in history)),
        "history": history,
        "seconds": time.perf_counter() - started,
    }
    write_atomically(out / "train.json", json.dumps(summary, indent=1) + "\n")
    show({k: v for k, v in summary.items() if as_json or k != "history"}, as_json)


def dry_run(recipe: Recipe, num_processes: int, *, as_json: bool) -> None:
    """What a live run will take at most."""
    quiet_libraries()
    from trainers.dry_run import plan

    show(asdict(plan(recipe, num_processes)), as_json)


def evaluator(agent: Any, store: Any, out: Path) -> Callable[[int], dict[str, Any]]:
    """Step -> tool-free scores of the present weights on the recipe's held-out problems, kept in
    the folder's evals.jsonl."""
    from evals.runner import evaluate

    problems = problems_of(agent.recipe, "heldout", agent.recipe.eval.problems)

    def at(step: int) -> dict[str, Any]:
        # a run that was killed between checkpoints may come to a step again with other weights
        weights = agent.engine.policy_version.weights
        scores = evaluate(agent, problems, store, f"eval/{step}/{weights}")
        found = {mode: score.summary() for mode, score in scores.items()}
        append_line(out / EVALS, {"step": step, **found})
        return {mode: asdict(score) for mode, score in scores.items()}

    return at


def evaluation_every(agent: Any, store: Any, out: Path) -> Callable[[int], None] | None:
    """What training calls after each step, where the recipe wants it evaluated."""
    every = agent.recipe.eval.every
    if every is None or not IS_MAIN:
        return None
    evaluate_at = evaluator(agent, store, out)

    def after_step(step: int) -> None:
        if step % every == 0:
            evaluate_at(step)

    return after_step


def train_live_into(
    agent: Any, problems: Any, store: Any, run_id: str, out: Path, experts: Path
) -> Path:
    """Live training with progress, its rollouts in `store`; returns the trained policy's folder."""
    from trainers.run import train_live

    recipe = agent.recipe
    store.start_run(
        run_id,
        kind="train",
        recipe=recipe.model_dump(mode="json"),
        sampling=agent.sampling,
        policy=agent.engine.policy_version,
    )
    agent.pool.open(experts, run_id)
    with training_bar(recipe.train.steps, out) as on_step:
        after_step = evaluation_every(agent, store, out)
        logged = _replayed(agent)
        return train_live(agent, problems, store, out, run_id, on_step, after_step, logged)


def _replayed(agent: Any) -> list[RolloutGroup]:
    """The groups that the recipe's replay draws from."""
    replay = agent.recipe.train.replay
    if replay is None:
        return []
    from eapo_agents.store import TraceStore
    from trainers.run import usable_groups

    with TraceStore.open(replay.store) as store:
        return usable_groups(agent, logged_groups(store, replay.run_id))


def train_logged_into(
    agent: Any, usable: list[RolloutGroup], out: Path, evaluated_in: Any = None
) -> Path:
    """Training on logged groups with progress; returns the trained policy's folder. Evaluated on
    the way, where the recipe wants that and there is a store for it."""
    from trainers.run import train_logged

    after_step = evaluation_every(agent, evaluated_in, out) if evaluated_in is not None else None
    with training_bar(None, out) as on_step:
        return train_logged(agent, usable, out, on_step, after_step)


def logged_groups(store: Any, run_id: str | None) -> list[RolloutGroup]:
    """The collections of a store, else its rated conversations, or one run of it, as groups."""
    from eapo_agents.errors import TraceError

    runs = list(store.runs())
    known = [run.run_id for run in runs if run.kind in ("collect", "train", "chat")]
    of_kind = {kind: [r.run_id for r in runs if r.kind == kind] for kind in ("collect", "chat")}
    wanted = [run_id] if run_id else of_kind["collect"] or of_kind["chat"]
    if run_id is not None and run_id not in known:
        raise TraceError(
            f"The store has no collection '{run_id}': it has {', '.join(known) or 'none'}."
        )
    groups = [group for name in wanted for group in store.groups(run_id=name)]
    if not groups:
        raise TraceError(
            "The store has no collected trajectories to train on: run `eapo collect` into it first."
        )
    return groups


def show(summary: dict[str, Any], as_json: bool) -> None:
    """A command's result: one JSON object, or a line for each of its facts."""
    if not IS_MAIN:
        return
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
        return
    for key, value in summary.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{key:24} {safe_text(text)}")
