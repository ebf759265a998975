"""The one table of all reports, and how figures are written in it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.metrics import PairedDifference

NONE = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text, each by the names of its columns."""

    rows: Sequence[Mapping[str, str]]
    """All with the same columns, in the same order."""
    num_text_columns: int = 1
    """Columns from the left that are words. The others are numbers, and stand at the right."""

    @property
    def header(self) -> list[str]:
        """The names of the columns; none where there is no row."""
        return list(self.rows[0]) if self.rows else []

    @property
    def sides(self) -> list[str]:
        """Where each column's text stands."""
        return ["left" if i < self.num_text_columns else "right" for i in range(len(self.header))]

    def cells(self) -> list[list[str]]:
        """The rows for a terminal: one line each, nothing that moves the cursor."""
        return [[one_line(cell) for cell in row.values()] for row in self.rows]

    def markdown(self) -> list[str]:
        """The lines of a Markdown table; whatever a cell holds, it stays one cell of text."""
        if not self.rows:
            return []
        rule = ["---" if side == "left" else "---:" for side in self.sides]
        header, *rows = (
            map(escaped, row) for row in (self.header, *(r.values() for r in self.rows))
        )
        return [f"| {' | '.join(row)} |" for row in (header, rule, *rows)]

    def csv(self) -> str:
        """The table for spreadsheets. Words that one would take for a formula get a `'`."""
        written = io.StringIO()
        lines = csv.writer(written, lineterminator="\n")
        if self.rows:
            lines.writerow(self.header)
        for row in self.cells():
            words, numbers = row[: self.num_text_columns], row[self.num_text_columns :]
            lines.writerow([f"'{w}" if w[:1] in _FORMULA else w for w in words] + numbers)
        return written.getvalue()

    def latex(self) -> str:
        """The table for a paper; it needs the package booktabs."""
        if not self.rows:
            return ""
        sides = "".join(side[0] for side in self.sides)
        head, *rows = (
            " & ".join(map(_in_latex, row)) + " \\\\" for row in (self.header, *self.cells())
        )
        middle = "\n".join(rows)
        return (
            f"\\begin{{tabular}}{{{sides}}}\n\\toprule\n{head}\n\\midrule\n{middle}\n"
            "\\bottomrule\n\\end{tabular}\n"
        )


_FORMULA = tuple("=+-@")
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in one_line(text))


def one_line(text: str) -> str:
    """Text from anywhere as one line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def escaped(text: str) -> str:
    """One line of Markdown that shows the text: no cell ends in it, no tag, code or link begins."""
    return re.sub(r"[\\|`]|<(?=[A-Za-z/!?])|\](?=[(\[:])", r"\\\g<0>", one_line(text))


def percent(value: float | None, digits: int = 1) -> str:
    """A share, such as `42.0%`."""
    return NONE if value is None else f"{value:.{digits}%}"


def number(value: float | None, digits: int = 0) -> str:
    """A count, such as `1,204`."""
    return NONE if value is None else f"{value:,.{digits}f}"


def interval(ci95: Sequence[float] | None) -> str:
    """An interval of a share, such as `[36.6%, 47.7%]`."""
    return NONE if ci95 is None else f"[{ci95[0]:.1%}, {ci95[1]:.1%}]"


def share(value: float, ci95: Sequence[float]) -> str:
    """A share and its interval, such as `42.0% [36.6%, 47.7%]`."""
    return f"{percent(value)} {interval(ci95)}"


def points(difference: float, ci95: Sequence[float] | None = None) -> str:
    """A difference of shares and its interval, such as `+39.0 points [+33.0, +44.7]`."""
    bounds = f" [{100 * ci95[0]:+.1f}, {100 * ci95[1]:+.1f}]" if ci95 else ""
    return f"{100 * difference:+.1f} points{bounds}"


def p_value(p: float | None) -> str:
    """A p value, such as `0.012`."""
    if p is None:
        return NONE
    return f"{p:.3f}" if p >= 0.0005 else "<0.001"


def difference_text(paired: PairedDifference) -> str:
    """A paired difference with its interval and corrected p value, on one line."""
    p = f"p {p_value(paired['p_holm'])} ({paired['test']}, Holm)"
    return f"{points(paired['difference'], paired['ci95'])}, {p}"
