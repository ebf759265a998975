"""`eapo compare`: two runs, problem by problem."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import JsonOption


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B")],
    as_json: JsonOption = False,
) -> None:
    """Compare two evaluations problem by problem, B - A. Evaluations whose settings differ are
    refused."""
    import json

    from evals.compare import compare_runs, comparison_page

    comparison = compare_runs(run_a, run_b)
    print(json.dumps(comparison.to_json()) if as_json else comparison_page(comparison).markdown())
