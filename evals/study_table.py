"""The figures and the report of a table: tasks and kinds of help as rows, methods as columns.

Only runs that have ended count, each planned for its budget: never a training that is under way.
Seeds are the unit, as in a study's report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from evals.metrics import holm
from evals.page import Page, Section
from evals.study import ArmDifference, ArmFigures, Run, Summary, arm_figures, paired_difference
from evals.study import run_figures as figures_of
from evals.study_report import difference_points, finding_lines
from evals.tables import Table, interval, number, p_value, percent

LEFT_OUT, MISSING = "left out", "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class CellRuns:
    """One cell with the runs that have begun."""

    task: str
    help: str
    method: str
    calls: int | None
    """The budget that its runs were planned for; None without one."""
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRuns:
    """What a table's folder has."""

    cells: Sequence[CellRuns]
    seeds: int
    """How many each cell should have: 0 to n - 1."""
    against: str
    """The method that the others are compared with."""
    without: Sequence[Mapping[str, object]]
    """What is left out: names by dimension, and `because`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellFigures:
    """What a cell reached."""

    task: str
    help: str
    method: str
    calls: int | None
    figures: ArmFigures
    """Of the seeds that have ended."""
    missing: Sequence[int]
    """Seeds whose run has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellDifference:
    """A method's accuracy less that of the reference, in one task and help."""

    task: str
    help: str
    calls: int | None
    """The budget of both; None where neither has one."""
    paired: ArmDifference
    """Its `p_holm` is corrected for all differences of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSummary:
    """The report's figures."""

    cells: Sequence[CellFigures]
    differences: Sequence[CellDifference]
    seeds: int
    against: str
    without: Sequence[Mapping[str, object]]


def summarise_table(table: TableRuns) -> TableSummary:
    """Return the figures of a table's runs."""
    cells = []
    for cell in table.cells:
        ended = [figures_of(run) for run in cell.runs if run["result"] is not None]
        had = {run.seed for run in ended}
        cells.append(
            CellFigures(
                task=cell.task,
                help=cell.help,
                method=cell.method,
                calls=cell.calls,
                figures=arm_figures(ended),
                missing=[seed for seed in range(table.seeds) if seed not in had],
            )
        )
    return TableSummary(
        cells=cells,
        differences=_differences(cells, table.against),
        seeds=table.seeds,
        against=table.against,
        without=table.without,
    )


def _differences(cells: Sequence[CellFigures], against: str) -> list[CellDifference]:
    """Every method against the reference under the same budget, paired by seed. A pair without
    budgets is compared once."""
    found: dict[tuple[str, str, str, int | None, int | None], CellDifference] = {}
    for task, help_, calls in rows_of(cells):
        reference = _cell(cells, task, help_, calls, against)
        for method in _methods(cells):
            cell = _cell(cells, task, help_, calls, method)
            if cell is None or reference is None or method == against:
                continue
            key = (task, help_, method, cell.calls, reference.calls)
            by_arm = {method: cell.figures.seeds, against: reference.figures.seeds}
            paired = paired_difference(by_arm, method, against)
            if paired is not None and key not in found:
                of_both = calls if cell.calls or reference.calls else None
                found[key] = CellDifference(task=task, help=help_, calls=of_both, paired=paired)
    every = list(found.values())
    p_values = {n: d.paired.p for n, d in enumerate(every) if d.paired.p is not None}
    corrected = holm(p_values)
    return [
        replace(d, paired=replace(d.paired, p_holm=corrected.get(n))) for n, d in enumerate(every)
    ]


def rows_of(cells: Sequence[CellFigures]) -> list[tuple[str, str, int | None]]:
    """Return the table's rows: each task and help, with each budget where it has any."""
    places = dict.fromkeys((cell.task, cell.help) for cell in cells)
    rows: list[tuple[str, str, int | None]] = []
    for task, help_ in places:
        budgets = sorted({c.calls for c in cells if (c.task, c.help) == (task, help_) and c.calls})
        rows += [(task, help_, calls) for calls in budgets] or [(task, help_, None)]
    return rows


def _methods(cells: Sequence[CellFigures]) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in cells))


def _cell(
    cells: Sequence[CellFigures], task: str, help_: str, calls: int | None, method: str
) -> CellFigures | None:
    """Return a method's cell in a row: that with its budget, or the one without any."""
    of_row = [c for c in cells if (c.task, c.help, c.method) == (task, help_, method)]
    fitting = [c for c in of_row if c.calls == calls] or [c for c in of_row if c.calls is None]
    return fitting[0] if fitting else None


def table_page(summary: TableSummary, by_arm: Summary) -> Page:
    """Return the report.

    Args:
        by_arm: all runs that have begun, by cell, for the guard rails.
    """
    return Page(
        title="Accuracy without experts, on held-out problems, by task and kind of help",
        sections=[
            Section(table=_accuracy(summary), text=[_MEANS, _ENDED]),
            Section(
                heading=f"Differences from {summary.against}",
                table=_difference_table(summary.differences),
                text=[_PAIRED],
            ),
            Section(heading="Expert calls that were paid", table=_calls(summary), text=[_PAID]),
            Section(heading="Left out", bullets=list(_left_out(summary.without))),
            Section(heading="Missing", bullets=list(_missing(summary))),
            Section(heading="Guard rails", bullets=finding_lines(by_arm)),
        ],
    )


_MEANS = (
    "Means over seeds; the interval is Student's t over seeds, cut to [0%, 100%]. The column "
    "'before' has the base policy that all methods of a row begin with."
)
_ENDED = (
    "Only runs that have ended count, each planned for the calls of its row. A method that asks "
    "nobody has the same runs in all rows of its task and help."
)
_PAIRED = (
    "Paired by seed; intervals and p values are of Student's paired t over seeds. p (Holm) is "
    "corrected for all differences of this table. One seed, or equal differences, give no interval."
)
_PAID = (
    "Means over seeds, of the training, as the ledgers have them: a reply that is used again is no "
    "call. A budget is a limit, so fewer may have been needed."
)


def _named(summary: TableSummary, task: str, help_: str, calls: int | None) -> dict[str, str]:
    """Return a row's name; without budgets, where the table has none."""
    has_budgets = any(cell.calls for cell in summary.cells)
    return {"task": task, "help": help_} | ({"calls at most": number(calls)} if has_budgets else {})


def _rows(
    summary: TableSummary,
) -> Iterator[tuple[dict[str, str], list[tuple[str, CellFigures | None]]]]:
    """Yield each row's name and its methods' cells."""
    methods = _methods(summary.cells)
    for task, help_, calls in rows_of(summary.cells):
        of_row = [(m, _cell(summary.cells, task, help_, calls, m)) for m in methods]
        yield _named(summary, task, help_, calls), of_row


def _accuracy(summary: TableSummary) -> Table:
    rows = []
    for name, of_row in _rows(summary):
        before = {
            run.seed: run.before
            for _, cell in of_row
            if cell is not None
            for run in cell.figures.seeds
            if run.before is not None
        }
        mean = sum(before.values()) / len(before) if before else None
        cells = {method: _reached(cell, summary.seeds) for method, cell in of_row}
        rows.append(name | {"before": percent(mean)} | cells)
    return Table(rows, num_text_columns=2)


def _reached(cell: CellFigures | None, seeds: int) -> str:
    if cell is None:
        return LEFT_OUT
    found, ended = cell.figures, len(cell.figures.seeds)
    if not ended:
        return MISSING
    ci95 = f" {interval(found.ci95)}" if found.ci95 else ""
    part = f" ({ended} of {seeds} seeds)" if cell.missing else ""
    return f"{percent(found.after)}{ci95}{part}"


def _calls(summary: TableSummary) -> Table:
    rows = []
    for name, of_row in _rows(summary):
        cells = {
            method: LEFT_OUT if cell is None else number(cell.figures.expert_calls)
            for method, cell in of_row
        }
        rows.append(name | cells)
    return Table(rows, num_text_columns=2)


def _difference_table(differences: Sequence[CellDifference]) -> Table:
    return Table(
        [
            {
                "task": d.task,
                "help": d.help,
                "method": d.paired.arm,
                "calls at most": number(d.calls),
                "seeds": str(d.paired.seeds),
                "difference": difference_points(d.paired),
                "p": p_value(d.paired.p),
                "p (Holm)": p_value(d.paired.p_holm),
            }
            for d in differences
        ],
        num_text_columns=3,
    )


def _left_out(without: Sequence[Mapping[str, object]]) -> Iterator[str]:
    for entry in without:
        where = ", ".join(
            f"{dimension} {' or '.join(map(str, names)) if isinstance(names, list) else names}"
            for dimension, names in entry.items()
            if dimension != "because"
        )
        because = entry.get("because")
        yield f"{where}: {because}" if because else where


def _missing(summary: TableSummary) -> Iterator[str]:
    for cell in summary.cells:
        if cell.missing:
            calls = f", {cell.calls:,} calls" if cell.calls else ""
            seeds = ", ".join(map(str, cell.missing))
            yield f"{cell.task}, {cell.help}, {cell.method}{calls}: seeds {seeds} have not ended"
