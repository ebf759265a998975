"""`eapo report`: the report of a run or a study."""

from __future__ import annotations

from eapo_agents.cli.options import JsonOption, RunArgument


def report(run: RunArgument, as_json: JsonOption = False) -> None:
    """Write report.html, report.md and report.json of a run or a study, and print the report."""
    import json

    from eapo_agents.runs.studies import report as write

    written = write(run)
    print(json.dumps(written.summary) if as_json else written.markdown)
