"""`eapo export`: a trained policy as a folder for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import JsonOption


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a training run or a warm start.")],
    to: Annotated[Path, typer.Option("--to", help="Folder to write: new, or empty.")],
    as_adapter: Annotated[
        bool, typer.Option("--adapter", help="Write the adapter alone, not the merged weights.")
    ] = False,
    evaluations: Annotated[
        list[Path],
        typer.Option("--eval", help="Evaluation of this policy, for the card. Repeatable."),
    ] = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """Write a trained policy as a folder that transformers and vLLM open, with a model card."""
    import json
    from dataclasses import asdict

    from eapo_agents.cli.progress import TERMINAL, console
    from eapo_agents.runs.exporting import export as write

    done = write(run, to, as_adapter=as_adapter, evaluations=evaluations, progress=TERMINAL)
    if as_json:
        print(json.dumps(asdict(done)))
        return
    console.print(
        f"Wrote the {done.kind} of {run} to {to}, with a model card (README.md) of "
        f"{done.evaluations} figures.",
        markup=False,
        soft_wrap=True,
    )
