"""`eapo compare`: two evaluations, training runs or studies."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import FormatOption, JsonOption, in_format


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B")],
    form: FormatOption = "markdown",
    as_json: JsonOption = False,
) -> None:
    """Compare two evaluations problem by problem, B - A; two training runs by what they reached,
    what they cost and how their recipes differ; two studies so arm by arm, paired by seed.
    Evaluations whose settings differ are refused."""
    import json

    from eapo_agents.runs.comparing import compare as compare_folders

    comparison, page = compare_folders(run_a, run_b)
    print(json.dumps(comparison.to_json()) if as_json else in_format(page, form))
