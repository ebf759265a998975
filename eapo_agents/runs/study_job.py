"""One job of a study, in its own process:

    python -m eapo_agents.runs.study_job FOLDER ARM PARENT

PARENT is the process id of the study.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.children import end_with_parent
from eapo_agents.errors import EapoError
from eapo_agents.files import write_atomically
from eapo_agents.interrupts import end_on_sigterm
from eapo_agents.recipe import Recipe
from eapo_agents.recipe_file import load_recipe
from eapo_agents.runs.collection import collect_into, tally_of
from eapo_agents.runs.folder import RECIPE, STEPS, TRACES, expert_file, read_history
from eapo_agents.runs.loading import load_agent, logged_groups, problems_of
from eapo_agents.runs.studies import BASE, RESULT
from eapo_agents.runs.training import evaluator, train_live_into, train_logged_into
from eapo_agents.runs.warm_starting import warm_start_into, with_fresh_model

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore
    from evals.runner import Score
    from graphs.agent import Agent

_CONSULTED = "assisted"


def run_job(folder: Path, arm: str) -> None:
    """Run the job that a folder's recipe.yaml describes, and write its result there."""
    recipe = load_recipe(folder / RECIPE)
    started = time.perf_counter()
    result = _make_base(recipe, folder) if arm == BASE else _run_arm(recipe, folder)
    result["seconds"] = time.perf_counter() - started
    write_atomically(folder / RESULT, json.dumps(result, indent=1) + "\n")


def _make_base(recipe: Recipe, folder: Path) -> dict[str, object]:
    assert recipe.warm_start is not None
    problems = problems_of(recipe, "train", recipe.warm_start.problems)
    agent = load_agent(with_fresh_model(recipe, problems, folder))
    _, num_episodes = warm_start_into(agent, problems, folder)
    return {"episodes": num_episodes}


def _run_arm(recipe: Recipe, folder: Path) -> dict[str, object]:
    from eapo_agents.store import TraceStore

    agent = load_agent(recipe)
    with TraceStore.open(str(folder / TRACES), create=True) as store:
        evaluate_at = evaluator(agent, store, folder)
        resumed = any(folder.glob("checkpoint-*"))
        before = None if resumed else _plain(evaluate_at(0))
        collected = _train(recipe, agent, store, folder)
        steps = len(read_history(folder)) if (folder / STEPS).exists() else 0
        final = _plain(evaluate_at(steps)) if steps or before is None else before
        assisted = _assisted(recipe, agent, store, steps)
        leaks = _leaks(recipe, store)
    return {
        "steps": steps,
        "final": final,
        _CONSULTED: assisted,
        "collected": collected,
        "leaks": leaks,
    }


def _plain(scores: Mapping[str, Score]) -> dict[str, object]:
    return {mode: asdict(score) for mode, score in scores.items()}


def _leaks(recipe: Recipe, store: TraceStore) -> dict[str, object]:
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
    recipe: Recipe, agent: Agent, store: TraceStore, folder: Path
) -> Mapping[str, object] | None:
    """Train by the arm's method. Return the tally of the collection, if it began with one."""
    experts = expert_file(recipe, folder)
    if recipe.train.method == "none":
        return None
    if recipe.train.method != "logged":
        problems = problems_of(recipe, "train", None)
        train_live_into(agent, problems, store, "train", folder, experts)
        return None
    from trainers.run import usable_groups

    problems = problems_of(recipe, "train", recipe.collect.problems)
    collect_into(agent, store, "collect", 1, problems, experts)
    tally = tally_of(store, "collect").summary()
    usable = usable_groups(agent, logged_groups(store, "collect"))
    train_logged_into(agent, usable, folder, store)
    return tally


def _assisted(
    recipe: Recipe, agent: Agent, store: TraceStore, step: int
) -> dict[str, object] | None:
    """Return the accuracy on the same problems with every reply accepted."""
    from eapo_agents.schedules import AcceptanceSchedule
    from evals.runner import evaluate

    if not agent.pool.tools:
        return None
    always = AcceptanceSchedule(kind="constant")
    problems = problems_of(recipe, "heldout", recipe.eval.problems)
    scores = evaluate(
        agent,
        problems,
        store,
        f"{_CONSULTED}/{step}/{agent.engine.policy_version.weights}",
        graph_of=lambda policy: agent.graph(policy, acceptance=always),
        # a query needs as many tokens as in training, however few a solo answer may have
        max_new_tokens=recipe.sampling.max_new_tokens,
    )
    return {mode: score.summary() for mode, score in scores.items()}


def main() -> None:
    """Run the process."""
    end_on_sigterm()
    # otherwise it would still run when the study is run again with the same job
    end_with_parent(int(sys.argv[3]))
    try:
        run_job(Path(sys.argv[1]), sys.argv[2])
    except EapoError as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
