"""`eapo report`: the report of a run, a study or an evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import FormatOption, JsonOption, in_format


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, a study or an evaluation.")],
    form: FormatOption = "markdown",
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run, a study or an evaluation as HTML, Markdown and JSON; print it."""
    import json

    from eapo_agents.runs.studies import report as write

    written = write(run)
    print(json.dumps(written.summary) if as_json else in_format(written.page, form))
