"""One page and one table for all reports: what was written by others stays text on them."""

import csv
import re
from html.parser import HTMLParser

import pytest

from eapo_agents.types import PolicyVersion
from evals.compare import Compared, Comparison, Side, comparison_page
from evals.demo_report import demo_page, demo_report
from evals.metrics import paired_differences
from evals.page import Page, Section
from evals.plots import study_plots
from evals.study import summarise
from evals.study_report import study_page
from evals.tables import Table, escaped, interval, number, p_value, percent, points, share

VERSION = PolicyVersion(model="m", base="b", weights="w", step=0)
HOSTILE = "<script>alert(1)</script>|a\\|b\n# c\x1b[31m [x](javascript:y) `d` <img src=x onerror=e>"


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.cells: list[str] = []
        self.in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.in_cell:
            self.cells[-1] += data


def cells_of(line: str) -> list[str]:
    """As GitHub reads a row: a bar after a backslash is text, any other begins a cell."""
    found = re.findall(r"((?:\\.|[^|\\])*)\|", line)
    return [re.sub(r"\\([\\|`<\]])", r"\1", cell.strip()) for cell in found[1:]]


def hostile_page() -> Page:
    table = Table([{"name": HOSTILE, "value": "1"}, {"name": "b", "value": HOSTILE}])
    section = Section(heading=HOSTILE, text=[HOSTILE], table=table, bullets=[HOSTILE])
    return Page(title=HOSTILE, subtitle=HOSTILE, sections=[section])


def test_hostile_text_is_text_everywhere_in_html():
    found = Elements(hostile_page().html())
    assert not {"script", "img", "a"} & set(found.tags)
    assert found.text.count("<script>alert(1)</script>") == 8  # the head's title too
    assert found.cells[2:4] == [HOSTILE, "1"]


def test_hostile_text_is_one_cell_of_one_line_in_markdown():
    table = Table([{"name": HOSTILE, "value": "1"}])
    header, rule, row = table.markdown()
    assert (header, rule) == ("| name | value |", "| --- | ---: |")
    plain = HOSTILE.replace("\n", " ").replace("\x1b", " ")
    assert cells_of(row) == [plain, "1"]
    assert table.cells() == [[plain, "1"]]
    markdown = hostile_page().markdown()
    assert not re.search(r"(?<!\\)<[a-z/]", markdown)
    assert not re.search(r"(?<!\\)\]\(", markdown)
    assert not re.search(r"^# c", markdown, re.MULTILINE)
    assert "\x1b" not in markdown


def test_figures_that_need_no_escape_have_none():
    assert escaped("42.0% [36.6%, 47.7%], p <0.001, a_b") == "42.0% [36.6%, 47.7%], p <0.001, a_b"


def test_figures_are_written_in_one_way():
    assert (percent(0.4205), percent(None), percent(0.5, 0)) == ("42.0%", "-", "50%")
    assert (number(1204.2), number(0.375, 1), number(None)) == ("1,204", "0.4", "-")
    assert (interval((0.366, 0.477)), interval(None)) == ("[36.6%, 47.7%]", "-")
    assert share(0.42, (0.366, 0.477)) == "42.0% [36.6%, 47.7%]"
    assert points(0.39, (0.33, 0.447)) == "+39.0 points [+33.0, +44.7]"
    assert points(-0.05) == "-5.0 points"
    assert [p_value(p) for p in (0.0123, 0.0004, 1.0, None)] == ["0.012", "<0.001", "1.000", "-"]


def test_sections_with_nothing_in_them_are_left_out():
    empty = Section(heading="Nothing", table=Table([]), text=["About the table."])
    page = Page(title="t", sections=[empty, Section(heading="Plot", svg="<svg></svg>")])
    assert page.markdown() == "# t\n"
    assert "Nothing" not in page.html()
    assert page.html().count("<svg>") == 1


def test_pages_are_one_file_that_asks_for_nothing(tmp_path):
    page = hostile_page()
    assert page.write(tmp_path) == (tmp_path / "report.md").read_text()
    html = (tmp_path / "report.html").read_text()
    assert html == page.html()
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r"(src|href)=[\"']", html)


def run_of(arm: str, seed: int, after: float):
    history = [{"step": step, "sampled_tokens": 5.0, "rho": 0.5} for step in (1, 2)]
    evals = [{"step": s, "scores": {"solo": {"score": a}}} for s, a in ((0, 0.1), (2, after))]
    return {"arm": arm, "seed": seed, "history": history, "evals": evals, "result": None}


def test_hostile_names_of_arms_stay_text_in_a_studys_page_and_plots():
    pytest.importorskip("vl_convert")
    runs = [run_of(arm, s, 0.2 + 0.1 * s) for arm in ("<script>x</script>", "b|c") for s in (0, 1)]
    summary = summarise(runs)
    page = study_page(summary, runs)
    assert len(study_plots(summary, runs)) == 3
    found = Elements(page.html())
    assert "script" not in found.tags
    assert found.tags.count("svg") == 3
    assert "b\\|c" in page.markdown()


def test_a_comparisons_page_has_test_and_corrected_p_value_of_each_benchmark():
    before = {str(i): float(i < 3) for i in range(20)}
    after = {str(i): float(i < 1 or i > 9) for i in range(20)}
    paired = paired_differences({"x solo": (before, after), "y solo": (before, before)})
    sides = {"metric": "accuracy", "before": 0.15, "after": 0.55}
    benchmarks = {
        "x solo": Compared(**sides, paired=paired["x solo"], gained=["1"] * 201, lost=["<b>"]),
        "y solo": Compared(**sides, paired=paired["y solo"], gained=[], lost=[]),
    }
    a, b = (Side(folder=folder, policy=VERSION) for folder in "AB")
    page = comparison_page(Comparison(a=a, b=b, benchmarks=benchmarks))
    assert "| exact McNemar | 0.039 | 0.077 | 201 | 1 |" in page.markdown()
    assert "1 and 1 more" in page.markdown()
    assert "\\<b>" in page.markdown()


def test_the_demos_page_compares_with_both_policies_under_every_condition():
    def evaluation(accuracy: float):
        score = {
            "score": accuracy,
            "ci95": (0.0, 1.0),
            "n": 10,
            "samples": 1,
            "temperature": 1.0,
            "formatted": 1.0,
            "sampled_tokens": 7,
            "per_problem": {str(i): float(i < 10 * accuracy) for i in range(10)},
        }
        return {"scores": {"solo": score, "greedy": score}, "seconds": 1.0}

    step = {
        "step": 1,
        "accuracy": 0.5,
        "consultation_rate": 0.25,
        "experts/calls": 3.0,
        "experts/withheld": 1.0,
        "sampled_tokens": 5.0,
    }
    phases = {
        "base": evaluation(0.0),
        "warm_start": {"episodes": 4, "seconds": 2.0},
        "before": evaluation(0.1),
        "collect": {
            "expert_calls": 5,
            "expert_calls_withheld": 2,
            "sampled_tokens": 9,
            "seconds": 3.0,
        },
        "train_logged": {"history": [step], "seconds": 4.0},
        "train_live": {"history": [step], "seconds": 5.0},
        "after": evaluation(0.9),
    }
    report = demo_report(phases, model="m|n", recipe="r", seed=0, base_examples=4)
    assert set(report.differences) == {
        f"after - {name}, {mode}" for name in ("before", "base") for mode in ("solo", "greedy")
    }
    # 8 gained, none lost: 2 / 2^8; the smaller p values of the other comparison come first
    assert report.differences["after - before, solo"]["p"] == pytest.approx(2 / 2**8)
    assert report.differences["after - base, solo"]["p_holm"] == pytest.approx(4 * 2 / 2**9)
    assert (report.experts, report.tokens["evaluation"]) == ({"calls": 8, "withheld": 3}, 42)
    assert report.seconds["total"] == 17.0
    markdown = demo_page(report).markdown()
    assert markdown.startswith("# EAPO demo: m\\|n, recipe r, seed 0")
    assert "| train_live | 1 | - | 50% | 25% | - | 3 | 1 |" in markdown


def test_tables_are_written_for_spreadsheets_and_papers():
    table = Table([{"arm": "=cmd|'x'!A1, a_b", "n": "4,026"}, {"arm": HOSTILE, "n": "1 & 2 % \\"}])
    page = Page(title="t", sections=[Section(table=table), Section(table=Table([])), Section()])

    header, first, second = csv.reader(page.tables(Table.csv).splitlines())
    assert header == ["arm", "n"]
    assert first == ["'=cmd|'x'!A1, a_b", "4,026"]  # no formula
    assert second[1] == "1 & 2 % \\"
    assert "\x1b" not in second[0]

    lines = page.tables(Table.latex).splitlines()
    assert lines[:2] == [r"\begin{tabular}{lr}", r"\toprule"]
    assert lines[4] == r"=cmd|'x'!A1, a\_b & 4,026 \\"
    assert lines[5].endswith(r"1 \& 2 \% \textbackslash{} \\")
    assert r"[x](javascript:y)" in lines[5]
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
