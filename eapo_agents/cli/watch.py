"""`eapo watch`: a run's or a study's latest figures, as they come."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import RunArgument


def watch(
    run: RunArgument,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is, and end.")] = False,
) -> None:
    """Show how a run or a study is going, until it ends or Ctrl-C."""
    from eapo_agents.cli import watch_view

    watch_view.watch(run, once=once)
