"""`eapo report`: the report of a run, a study or an evaluation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from eapo_agents.cli.options import FormatOption, JsonOption, in_format


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, a study or an evaluation.")],
    form: FormatOption = "markdown",
    plots: Annotated[
        Literal["svg", "png"] | None,
        typer.Option("--plots", help="Write each plot as a file too, into the folder's plots/."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run, a study or an evaluation as HTML, Markdown and JSON; print it."""
    import json

    from eapo_agents.runs.study_reports import report as write

    written = write(run)
    if plots is not None:
        from evals.plots import write_plots

        for file in write_plots(written.page, run / "plots", plots):
            print(file, file=sys.stderr)
    print(json.dumps(written.summary) if as_json else in_format(written.page, form))
