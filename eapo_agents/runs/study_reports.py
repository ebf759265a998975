"""Writes the report of a run, a study, a table or an evaluation into its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.errors import UsageError
from eapo_agents.files import write_atomically
from eapo_agents.runs.studies import SETTINGS

if TYPE_CHECKING:
    from evals.page import Page


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The report of a run or a study."""

    summary: dict[str, object]
    """What report.json holds."""
    page: Page


def report(folder: Path) -> Report:
    """Write report.json, report.md and report.html into the folder of a run or a study, or of a
    table and each of its studies; of an evaluation report.md and report.html, since it has
    results.json.

    Raises:
        UsageError: there is nothing to report yet.
    """
    from eapo_agents.runs.grading import is_evaluation, report_evaluation
    from eapo_agents.runs.records import read_runs, read_table_runs
    from eapo_agents.runs.run_reports import run_facts
    from evals.run_report import run_page
    from evals.study import summarise
    from evals.study_report import study_page

    if is_evaluation(folder):
        evaluation, page = report_evaluation(folder)
        return Report(summary=evaluation.to_json(), page=page)
    runs = read_runs(folder)
    if not runs:
        raise UsageError(f"The study in '{folder}' has no results yet: run it again to continue.")
    found = summarise(runs)
    summary = asdict(found)
    table = read_table_runs(folder)
    if table is not None:
        from evals.study_table import summarise_table, table_page

        for study in {f"{cell.task}/{cell.help}" for cell in table.cells if cell.runs}:
            report(folder / study)
        of_table = summarise_table(table)
        summary = asdict(of_table)
        page = table_page(of_table, found)
    elif (folder / SETTINGS).exists():
        page = study_page(found, runs)
    else:
        facts = run_facts(folder)
        summary |= {"run": asdict(facts)}
        page = run_page(runs[0], found, facts)
    write_atomically(folder / "report.json", json.dumps(summary, indent=1) + "\n")
    page.write(folder)
    return Report(summary=summary, page=page)
