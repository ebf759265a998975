"""`eapo help`: what `--help` prints, for whoever asks in this way."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.errors import UsageError
from eapo_agents.registry import did_you_mean


def help_(
    context: typer.Context,
    command: Annotated[
        list[str] | None, typer.Argument(help="Such as train, or traces show.")
    ] = None,
) -> None:
    """Print the help of a command."""
    here = context.find_root()
    for name in command or []:
        known = getattr(here.command, "commands", {})
        if name not in known:
            raise UsageError(
                f"There is no command '{' '.join(command or [])}'. {did_you_mean(name, known)}"
                f"Known: {', '.join(known) or 'none below this one'}."
            )
        here = type(here)(known[name], info_name=name, parent=here)
    typer.echo(here.get_help())
