"""Traces to and from tracing platforms: `eapo traces export --to` and `eapo traces import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.errors import TraceError, UsageError

if TYPE_CHECKING:
    from eapo_agents.store import TraceStore


def export_to(
    store: TraceStore, file: Path, run_id: str | None, form: str, to: str, *, as_json: bool
) -> None:
    """Write trajectories in the form of a platform.

    Raises:
        UsageError: there is no such platform, or the file or form does not fit.
    """
    import json

    from eapo_agents.cli.output import safe_text
    from eapo_agents.store.export import export_rows
    from eapo_agents.store.platforms import PLATFORMS, platform_rows

    if to not in PLATFORMS:
        raise UsageError(f"--to must be {' or '.join(PLATFORMS)}, got '{to}'.")
    if form != "trajectories" or file.suffix != ".jsonl":
        raise UsageError(f"--to {to} writes trajectories to a .jsonl file: leave --as out.")
    prompts = {run.run_id: run.system_prompt for run in store.runs()}
    num_rows = export_rows(platform_rows(to, store.trajectories(run_id), prompts), file)
    if as_json:
        print(json.dumps({"file": str(file), "rows": num_rows}))
    else:
        print(f"{num_rows} rows in {safe_text(str(file))}")


def import_traces(
    traces: Annotated[Path, typer.Argument(help="JSONL of LangSmith runs or Langfuse traces.")],
    file: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file to write.")],
    score: Annotated[str, typer.Option("--score", help="Name of the score that decides.")] = (
        "reward"
    ),
    min_score: Annotated[float, typer.Option("--min-score", help="Least score to take.")] = 0.5,
    unscored: Annotated[
        bool, typer.Option("--all", help="Take every trace, whatever its score.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a dataset for TRL's SFT of traces that others recorded: {prompt, completion}."""
    import json

    from eapo_agents.cli.output import safe_text
    from eapo_agents.store.export import export_rows
    from eapo_agents.store.foreign_traces import import_rows

    found = import_rows(traces, score=score, min_score=None if unscored else min_score)
    left_out = (
        f"{found.num_unscored} have no score '{score}', {found.num_low} a lower one, "
        f"{found.num_without_text} failed or have no words"
    )
    if not found.rows:
        raise TraceError(
            f"None of the {found.num_traces} traces can be trained on: {left_out}. Name another "
            "--score, lower --min-score, or take --all."
        )
    num_rows = export_rows(found.rows, file)
    if as_json:
        print(json.dumps({"file": str(file), "rows": num_rows, "traces": found.num_traces}))
    else:
        print(safe_text(f"{num_rows} of {found.num_traces} traces in {file}; {left_out}"))
