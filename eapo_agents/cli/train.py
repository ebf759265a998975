"""`eapo train`: live, from logged traces, or by distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    GraphOption,
    JsonOption,
    OutOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    resolved,
)


def train(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    out: OutOption = Path("runs/train"),
    from_traces: Annotated[
        str | None,
        typer.Option(
            "--from-traces", help="Trace store to train on. Without it, training rolls out live."
        ),
    ] = None,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", help="With --from-traces: train on this collection only."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what a live run needs at most; do not train."),
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="With --dry-run: number of processes.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Train the policy on its own rollouts or on logged ones. The same command continues."""
    from dataclasses import asdict

    from eapo_agents.cli.output import show
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs import training

    if from_traces is not None:
        overrides = [*overrides, "train.method=logged"]
    whole = resolved(recipe, overrides, policy, graph)
    if dry_run:
        show(asdict(training.dry_run(whole, processes)), as_json=as_json)
        return
    trained = training.train(whole, out, from_traces=from_traces, run_id=run_id, progress=TERMINAL)
    facts = asdict(trained)
    of_programs = () if as_json else ("history", "collected")
    show({k: v for k, v in facts.items() if k not in of_programs}, as_json=as_json)
