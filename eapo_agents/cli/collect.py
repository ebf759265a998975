"""`eapo collect`: one process's part of a collection, or all of it."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    GraphOption,
    JsonOption,
    PolicyOption,
    RecipeOption,
    RetryFailedOption,
    SetOption,
    StoreOption,
    resolved,
    retrying,
)


def collect(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    store: StoreOption = DEFAULT_STORE,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", help="Name of the collection. The same name continues it."),
    ] = None,
    step: Annotated[
        int, typer.Option("--step", min=0, help="Training step whose schedules apply.")
    ] = 1,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="i/n: only the i-th of n equal parts of the problems."),
    ] = None,
    ray_tasks: Annotated[
        int | None,
        typer.Option(
            "--ray", min=1, help="Collect by this many tasks of the Ray cluster at RAY_ADDRESS."
        ),
    ] = None,
    retry_failed: RetryFailedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run problems x G rollouts of the graph into a trace store."""
    from eapo_agents.cli.output import show
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.errors import ErrorBudgetError, UsageError
    from eapo_agents.runs.collection import collect as run

    if shard is not None and ray_tasks is not None:
        raise UsageError("--ray makes shards by itself: drop --shard or --ray.")
    whole = resolved(recipe, retrying(overrides, retry_failed), policy, graph)
    if ray_tasks is not None:
        from eapo_agents.runs.ray_collection import collect_by_tasks

        collected = collect_by_tasks(
            whole, store, ray_tasks, run_id=run_id, step=step, progress=TERMINAL
        )
    else:
        collected = run(whole, store, run_id=run_id, step=step, shard=shard, progress=TERMINAL)
    show(collected.summary, as_json=as_json)
    tally, most = collected.tally, whole.rollouts.max_error_share
    if tally.failed > most * max(1, tally.rollouts):
        raise ErrorBudgetError(
            f"{tally.failed} of {tally.rollouts} rollouts failed, and at most {most:.0%} may: "
            f"see `eapo traces stats {collected.store}`."
        )
