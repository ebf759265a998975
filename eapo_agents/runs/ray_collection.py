"""A collection by n tasks of a Ray cluster, into one PostgreSQL store.

Ray finds the machines and starts a task again whose worker died. The store decides who collects
what and that nothing is there twice, as with processes started by hand.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from eapo_agents.errors import EapoError, ServerError, UsageError
from eapo_agents.progress import SILENT, Progress
from eapo_agents.recipe import Recipe
from eapo_agents.runs.collection import (
    Collected,
    collect_into,
    num_complete,
    shard_of,
    tally_of,
)
from eapo_agents.runs.folder import expert_file, in_a_line, store_folder
from eapo_agents.runs.loading import load_agent, problems_of, refuse_people
from eapo_agents.store.pulse import SILENT_S

LOOK_S = 2.0
"""How often the store is asked how far the tasks are."""


def collect_by_tasks(
    recipe: Recipe,
    store_at: str,
    num_tasks: int,
    *,
    run_id: str | None = None,
    step: int = 1,
    progress: Progress = SILENT,
) -> Collected:
    """Collect by so many tasks, wait for them, and return what they did.

    The cluster is RAY_ADDRESS's, else one that Ray starts on this machine. Each task takes one
    CPU, and one GPU where the recipe's policy samples on one. Interrupted, it cancels the tasks;
    what has ended is in the store.

    Raises:
        UsageError: no Ray, no cluster at that address, or a store that only this machine sees.
        ServerError: workers died again and again.
    """
    ray = _ray()
    from eapo_agents.store import TraceStore

    if not store_at.startswith("postgresql"):
        raise UsageError(
            "--ray collects on several machines, and a file is on one: give --store a PostgreSQL "
            f"URL (postgresql+psycopg://USER@HOST/DATABASE), got '{store_at}'."
        )
    started = time.perf_counter()
    run_id = run_id or f"collect-{recipe.name}"
    progress.say(f"{in_a_line(recipe)}. Collects into {store_at}, run {run_id}.")
    problems = problems_of(recipe, "train", recipe.collect.problems)
    # Ray's words on its workers go to stdout, which is for the result alone
    with TraceStore.open(store_at, create=True) as store, redirect_stdout(sys.stderr):
        _connect(ray, progress)
        try:
            with progress.bar("Collect (groups)", len(problems)) as bar:

                def complete() -> int:
                    done = num_complete(store, run_id, step, problems, recipe)
                    bar.at(done)
                    return done

                done = _run_tasks(ray, recipe, num_tasks, (store_at, run_id, step), complete)
                if complete() < len(problems):  # what died on another machine was working on them
                    time.sleep(SILENT_S)
                    done += _run_tasks(ray, recipe, num_tasks, (store_at, run_id, step), complete)
        finally:
            ray.shutdown()
        return Collected(
            run_id=run_id,
            store=store.name,
            run_now=sum(each["run_now"] for each in done),
            tally=tally_of(store, run_id),
            seconds=time.perf_counter() - started,
            tasks=num_tasks,
            nodes=len({each["node"] for each in done}),
        )


def _ray() -> ModuleType:
    """Raises UsageError: Ray is not installed."""
    try:
        return import_module("ray")
    except ImportError as error:
        raise UsageError(
            "--ray needs Ray: install it with pip install 'eapo-agents[ray]'."
        ) from error


def _connect(ray: Any, progress: Progress) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    with progress.status(f"Connecting to Ray at {address or 'this machine'} ..."):
        try:
            host, _, port = (address or "").rpartition("://")[2].rpartition(":")
            if host:  # Ray itself would try for minutes
                socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(logging_level="ERROR", log_to_driver=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"No Ray cluster can be used at RAY_ADDRESS={address} ({_first_line(error)}): "
                "start one with `ray start --head`, or unset RAY_ADDRESS."
            ) from error


def _run_tasks(
    ray: Any, recipe: Recipe, num_tasks: int, where: tuple[str, str, int], on_look: Any
) -> list[dict[str, Any]]:
    """What all tasks did; on_look is called every LOOK_S seconds."""
    task = ray.remote(_collect_shard).options(
        name="eapo collect",
        num_cpus=1,
        num_gpus=float(recipe.policy.device.startswith("cuda")),
        scheduling_strategy="SPREAD",
    )
    asked = (recipe.model_dump(mode="json"), *where, str(Path.cwd()))
    left = tasks = [task.remote(*asked, f"{i}/{num_tasks}") for i in range(1, num_tasks + 1)]
    try:
        while left:
            ready, left = ray.wait(left, num_returns=len(left), timeout=LOOK_S)
            ray.get(ready)  # one that failed ends all of them
            on_look()
        return list(ray.get(tasks))
    except BaseException as error:
        for task in left:
            ray.cancel(task)
        if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, EapoError):
            raise error.cause from None
        if isinstance(error, ray.exceptions.RayError):
            raise ServerError(
                f"A task of the Ray cluster failed ({_first_line(error)}): look at that worker's "
                "log, then run the same command again, which continues with the rest."
            ) from error
        raise


def _collect_shard(
    recipe: dict[str, Any], store_at: str, run_id: str, step: int, folder: str, shard: str
) -> dict[str, Any]:
    """One task: a shard, in the same folder as the command where that machine has it too."""
    import ray

    from eapo_agents.store import TraceStore

    if Path(folder).is_dir():
        os.chdir(folder)
    whole = Recipe.model_validate(recipe)
    problems = shard_of(problems_of(whole, "train", whole.collect.problems), shard)
    agent = load_agent(whole)
    refuse_people(agent.pool, "collect")
    experts = expert_file(whole, store_folder(store_at))
    with TraceStore.open(store_at) as store:
        num_run = collect_into(agent, store, run_id, step, problems, experts)
    node = ray.get_runtime_context().get_node_id()
    return {"run_now": num_run, "node": node}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
