"""The figures of a table: only runs that have ended count, differences are paired by seed and
corrected over the whole table, and what was paid is what the ledgers say."""

import pytest

from evals.study import summarise
from evals.study_table import CellRuns, TableRuns, rows_of, summarise_table, table_page
from evals.tables import Table


def run_of(method, seed, after, *, paid=None, ended=True):
    """A run that starts at 10% and whose steps count 10 calls each, two steps."""
    return {
        "arm": method,
        "seed": seed,
        "history": [{"step": step, "experts/calls": 10} for step in (1, 2)],
        "evals": [{"step": s, "scores": {"solo": {"score": a}}} for s, a in ((0, 0.1), (2, after))],
        "result": {"paid_calls": paid} if ended else None,
    }


def cell(method, *afters, calls=None, task="sums", help_="whole", **options):
    runs = [run_of(method, seed, after, **options) for seed, after in enumerate(afters)]
    return CellRuns(task=task, help=help_, method=method, calls=calls, runs=runs)


def table(*cells, seeds=3, against="distillation", without=()):
    return TableRuns(cells=cells, seeds=seeds, against=against, without=without)


def test_a_method_is_compared_under_the_same_budget_and_all_of_the_table_is_corrected():
    summary = summarise_table(
        table(
            cell("distillation", 0.1, 0.2, 0.3, calls=200),
            cell("distillation", 0.2, 0.2, 0.2, calls=700),
            cell("eapo", 0.2, 0.4, 0.6, calls=200),
            cell("eapo", 0.3, 0.2, 0.4, calls=700),
            cell("distillation", 0.5, 0.5, 0.5, calls=200, help_="plan"),
            cell("eapo", 0.6, 0.8, 0.7, calls=200, help_="plan"),
        )
    )
    found = {(d.help, d.calls): d.paired for d in summary.differences}
    assert [round(d.points) for d in found.values()] == [20, 10, 20]
    # t(2) = 2 sqrt(3) for differences 0.1, 0.2, 0.3 and for 0.1, 0.3, 0.2; sqrt(3) for 0.1, 0, 0.2
    small, large = 1 - (12 / 14) ** 0.5, 1 - (3 / 5) ** 0.5
    assert found["whole", 200].p == pytest.approx(small)
    assert found["whole", 700].p == pytest.approx(large)
    assert found["plan", 200].p_holm == pytest.approx(3 * small)
    assert found["whole", 700].p_holm == pytest.approx(max(3 * small, large))


def test_a_run_that_has_not_ended_does_not_count_and_is_named():
    half = cell("eapo", 0.9, calls=200)
    half.runs.append(run_of("eapo", 1, 0.2, ended=False))
    summary = summarise_table(
        table(cell("distillation", 0.1, 0.1, 0.1, calls=200), half, cell("offline", calls=200))
    )
    eapo, offline = summary.cells[1:]
    assert (eapo.figures.after, eapo.missing) == (0.9, [1, 2])
    assert (offline.figures.after, offline.missing) == (None, [0, 1, 2])
    page = table_page(summary, summarise([])).markdown()
    assert "| sums | whole | 200 | 10.0% | 10.0% | 90.0% (1 of 3 seeds) | missing |" in page
    assert "- sums, whole, eapo, 200 calls: seeds 1, 2 have not ended" in page
    assert len(summary.differences) == 1


def test_a_method_that_asks_nobody_stands_in_every_row_and_is_tested_once_for_each_pair():
    cells = (
        cell("self-exploration", 0.1, 0.2, 0.4),
        cell("base-rl", 0.2, 0.2, 0.2),
        cell("eapo", 0.4, 0.6, 0.5, calls=200),
        cell("eapo", 0.5, 0.7, 0.9, calls=700),
    )
    summary = summarise_table(table(*cells, against="self-exploration"))
    assert rows_of(summary.cells) == [("sums", "whole", 200), ("sums", "whole", 700)]
    pairs = [(d.paired.arm, d.calls) for d in summary.differences]
    assert pairs == [("base-rl", None), ("eapo", 200), ("eapo", 700)]
    assert summary.differences[0].paired.p_holm == pytest.approx(summary.differences[0].paired.p)


def test_what_was_paid_is_what_the_ledger_says_and_a_reply_used_again_is_no_call():
    summary = summarise_table(table(cell("distillation", 0.5, 0.6, 0.7, calls=12, paid=12)))
    (found,) = summary.cells
    assert found.figures.expert_calls == 12
    assert found.figures.seeds[0].calls_at == [0, 12]
    # nor does an older folder, which does not say, lose its figure
    (older,) = summarise_table(table(cell("eapo", 0.5))).cells
    assert older.figures.expert_calls == 20


def test_the_page_says_what_is_left_out_and_its_tables_are_csv_and_latex_too():
    summary = summarise_table(
        table(
            cell("distillation", 0.5, 0.6, 0.7),
            cell("eapo", 0.5, 0.7, 0.9),
            cell("distillation", 0.5, 0.6, 0.7, help_="plan"),
            without=[{"help": ["plan"], "method": ["eapo"], "because": "it takes an hour"}],
        )
    )
    page = table_page(summary, summarise([]))
    markdown = page.markdown()
    assert "- help plan, method eapo: it takes an hour" in markdown
    assert "| sums | plan | 10.0% | 60.0% [35.2%, 84.8%] | left out |" in markdown
    # without budgets no row names one
    assert "calls at most" not in markdown.partition("## Differences")[0]
    assert page.tables(Table.csv).startswith("task,help,before,distillation,eapo\n")
    assert "\\begin{tabular}" in page.tables(Table.latex)
    assert "<table>" in page.html()
