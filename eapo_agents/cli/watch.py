"""`eapo watch`: the latest figures of a run, a study, a demo, an evaluation or a collection."""

from __future__ import annotations

from typing import Annotated

import typer


def watch(
    run: Annotated[
        str,
        typer.Argument(
            help="Folder of a training run, a study, a demo or an evaluation; or a trace store."
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Show the figures once and exit.")] = False,
) -> None:
    """Show the latest figures of a run, a study, a demo, an evaluation or a collection until it
    ends or is interrupted, or until Ctrl-C."""
    from eapo_agents.cli import watch_view

    watch_view.watch(run, once=once)
