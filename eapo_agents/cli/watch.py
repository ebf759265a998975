"""`eapo watch`: the latest figures of a run or a study."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import RunArgument


def watch(
    run: RunArgument,
    once: Annotated[bool, typer.Option("--once", help="Show the figures once and exit.")] = False,
) -> None:
    """Show the latest figures of a run or a study until it ends, or until Ctrl-C."""
    from eapo_agents.cli import watch_view

    watch_view.watch(run, once=once)
