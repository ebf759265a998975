"""One job of a study, in its own process:

    python -m eapo_agents.runs.study_job FOLDER ARM PARENT

PARENT is the process id of the study.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.children import end_with_parent
from eapo_agents.errors import EapoError
from eapo_agents.files import write_atomically
from eapo_agents.interrupts import end_on_sigterm
from eapo_agents.progress import Progress
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.collection import collect_into, tally_of
from eapo_agents.runs.evaluation import score_policy
from eapo_agents.runs.evaluation_plan import task_part
from eapo_agents.runs.folder import RECIPE, STEPS, TRACES, expert_file, read_history
from eapo_agents.runs.job_progress import JobProgress
from eapo_agents.runs.loading import load_agent, logged_groups, problems_of, warm_start_problems
from eapo_agents.runs.studies import BASE, RESULT
from eapo_agents.runs.training import evaluator, train_live_into, train_logged_into
from eapo_agents.runs.warm_starting import warm_start_into, with_fresh_model
from eapo_agents.secrets import redact

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from evals.results import Score
    from graphs.agent import Agent

JsonObject = dict[str, object]


def run_job(folder: Path, arm: str) -> None:
    """Run the job that a folder's recipe.yaml describes, and write its result there."""
    recipe = load_recipe(folder / RECIPE)
    started = time.perf_counter()
    progress = JobProgress(folder)
    make = _make_base if arm == BASE else _run_arm
    result = make(recipe, folder, progress)
    result["seconds"] = time.perf_counter() - started
    write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")


def _make_base(recipe: Recipe, folder: Path, progress: Progress) -> JsonObject:
    problems = warm_start_problems(recipe)
    agent = load_agent(with_fresh_model(recipe, problems, folder))
    _, num_episodes = warm_start_into(agent, problems, folder, progress)
    return {"episodes": num_episodes}


def _run_arm(recipe: Recipe, folder: Path, progress: Progress) -> JsonObject:
    from eapo_agents.store import TraceStore

    agent = load_agent(recipe)
    with TraceStore.open(str(folder / TRACES), create=True) as store:
        agent.pool.open(expert_file(recipe, folder), "eval")
        evaluate_at = evaluator(agent, store, folder, progress)
        resumed = any(folder.glob("checkpoint-*"))
        before = None if resumed else _plain(evaluate_at(0))
        collected = _train(recipe, agent, store, folder, progress)
        steps = len(read_history(folder)) if (folder / STEPS).exists() else 0
        final = _plain(evaluate_at(steps)) if steps or before is None else before
        assisted = _assisted(recipe, agent, store, steps, folder, progress)
        leaks = _leaks(recipe, store)
    return {
        "steps": steps,
        "final": final,
        "assisted": assisted,
        "collected": collected,
        "leaks": leaks,
        "paid_calls": _paid_calls(recipe, folder),
    }


def _paid_calls(recipe: Recipe, folder: Path) -> int | None:
    """Return the calls of the training by its ledger; None where other runs share it."""
    from eapo_agents.experts.call_store import CallStore

    if recipe.consult.expert_store is not None:
        return None
    store = CallStore(expert_file(recipe, folder))
    try:
        return store.spent("train", "collect")[0]
    finally:
        store.close()


def _plain(scores: Mapping[str, Score]) -> JsonObject:
    return {name: score.to_json() for name, score in scores.items()}


def _leaks(recipe: Recipe, store: TraceStore) -> JsonObject:
    """Return the evaluation problems that were trained on, or that experts were asked."""
    from evals.guards import leaked_consultations, leaked_problems

    evaluated = problems_of(recipe, "heldout", recipe.eval.problems)
    trained = problems_of(recipe, "train", None)
    trajectories = (
        stored.trajectory
        for run_id in ("train", "collect")
        for stored in store.trajectories(run_id=run_id)
    )
    return {
        "problems": leaked_problems(evaluated, trained),
        "consultations": leaked_consultations(evaluated, trajectories),
    }


def _train(
    recipe: Recipe, agent: Agent, store: TraceStore, folder: Path, progress: Progress
) -> JsonObject | None:
    """Train by the arm's method. Return the tally of the collection, if it began with one."""
    experts = expert_file(recipe, folder)
    if recipe.train.method == "none":
        return None
    if recipe.train.method != "logged":
        problems = problems_of(recipe, "train", None)
        train_live_into(agent, problems, store, "train", folder, experts, progress)
        return None
    from trainers.run import usable_groups

    problems = problems_of(recipe, "train", recipe.collect.problems)
    collect_into(agent, store, "collect", 1, problems, experts, progress)
    tally: JsonObject = dict(tally_of(store, "collect").summary())
    usable = usable_groups(agent, logged_groups(store, "collect"))
    train_logged_into(agent, usable, folder, store, progress=progress)
    return tally


def _assisted(
    recipe: Recipe,
    agent: Agent,
    store: TraceStore,
    step: int,
    folder: Path,
    progress: Progress,
) -> JsonObject | None:
    """Return the score with every reply accepted, on the same problems; None where the recipe has
    no experts, or a graph that is evaluated as it is."""
    from evals.conditions import ASSISTED, UNASSISTED

    if not agent.pool.tools or recipe.graph in UNASSISTED:
        return None
    agent.pool.open(expert_file(recipe, folder), ASSISTED)
    part = task_part(recipe, assisted=True, pool=agent.pool)
    part = replace(part, conditions=tuple(c for c in part.conditions if c.name == ASSISTED))
    weights = agent.engine.policy_version.weights
    scores = score_policy(agent, part, store, f"{ASSISTED}/{step}/{weights}", progress)
    return scores[ASSISTED].summary()


def main() -> None:
    """Run the process."""
    end_on_sigterm()
    # otherwise it would still run when the study is run again with the same job
    end_with_parent(int(sys.argv[3]))
    try:
        run_job(Path(sys.argv[1]), sys.argv[2])
    except EapoError as error:
        sys.exit(redact(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
