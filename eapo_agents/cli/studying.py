"""The commands of studies: `study`, `report`, `watch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import JsonOption, SetOption

RunArgument = Annotated[Path, typer.Argument(help="Folder of a training run or of a study.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (study, report, watch):
        app.command()(command)


def study(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or a name in ./recipes.")],
    arms: Annotated[
        str,
        typer.Option("--arms", help="Such as self-exploration,eapo,eapo+noisy: names of arms."),
    ] = "self-exploration,paper,eapo,distillation",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0 to n - 1.")] = 3,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Processes at once; a core each by default.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the study.")] = Path("runs/study"),
    as_json: JsonOption = False,
) -> None:
    """Runs arms of a recipe on several seeds and compares what they reach alone. Resumes."""
    import os

    from eapo_agents.cli.study import Study, run_study

    run_study(
        Study(
            recipe=recipe,
            overrides=overrides,
            arms=[arm.strip() for arm in arms.split(",") if arm.strip()],
            seeds=seeds,
            folder=out,
            at_once=jobs or os.cpu_count() or 1,
        ),
        as_json=as_json,
    )


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Writes report.html, report.md and report.json of a run or a study, and prints it."""
    from eapo_agents.cli.study import report as write

    write(run, as_json=as_json)


def watch(
    run: RunArgument,
    once: Annotated[bool, typer.Option("--once", help="Show it as it is, and end.")] = False,
) -> None:
    """Shows how a run or a study is going, until it ends or Ctrl-C."""
    from eapo_agents.cli import watching

    watching.watch(run, once=once)
