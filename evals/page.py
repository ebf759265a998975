"""The one page of all reports, as Markdown and as one HTML file that needs no network.

Everything on it is text: what models, files and users wrote is escaped. Only a section's `svg`,
which we draw ourselves, is put in as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eapo_agents.files import write_atomically
from evals.tables import Table, escaped


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Part of a page: what is given is shown in this order."""

    heading: str = ""
    text: Sequence[str] = ()
    """Paragraphs."""
    table: Table | None = None
    bullets: Sequence[str] = ()
    svg: str = ""
    """A plot; in the HTML only."""

    @property
    def shown(self) -> bool:
        """Whether there is anything: paragraphs about an empty table are not."""
        return bool(self.svg or self.bullets or (self.table.rows if self.table else self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A report."""

    title: str
    subtitle: str = ""
    sections: Sequence[Section]

    def markdown(self) -> str:
        """The report for repositories and pull requests."""
        blocks = [[f"# {escaped(self.title)}"], [escaped(self.subtitle)]]
        for section in self.sections:
            if section.svg or not section.shown:
                continue
            blocks += [[f"## {escaped(section.heading)}" if section.heading else ""]]
            blocks += [[escaped(paragraph)] for paragraph in section.text]
            blocks += [section.table.markdown() if section.table else []]
            blocks += [[f"- {escaped(bullet)}" for bullet in section.bullets]]
        return "\n\n".join("\n".join(block) for block in blocks if any(block)) + "\n"

    def tables(self, write: Callable[[Table], str]) -> str:
        """Every table of the report, written in another way; an empty line between two."""
        found = [section.table for section in self.sections if section.table and section.shown]
        return "\n".join(map(write, found))

    def plots(self) -> dict[str, str]:
        """Every plot as SVG, by a name for a file, such as `rollouts-that-ask`."""
        return {
            re.sub(r"\W+", "-", section.heading.lower()).strip("-"): section.svg
            for section in self.sections
            if section.svg
        }

    def write(self, folder: Path) -> str:
        """Write report.md and report.html into the folder; return the Markdown."""
        markdown = self.markdown()
        write_atomically(folder / "report.md", markdown)
        write_atomically(folder / "report.html", self.html())
        return markdown

    def html(self) -> str:
        """The report for a browser, on wide and narrow screens, light and dark."""
        from jinja2 import Environment

        return Environment(autoescape=True).from_string(_HTML).render(page=self)


_HTML = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
:root { --ink: #1c2430; --dim: #5b6675; --line: #d7dce3; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #dde3ea; --dim: #97a3b3; --line: #343d4a; --paper: #14181f; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin: 1.5rem 0 .5rem; }
.dim { color: var(--dim); }
main { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)); }
section { min-width: 0; } .wide { grid-column: 1 / -1; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0; font-size: .9rem; overflow-wrap: normal; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left; }
th { vertical-align: bottom; color: var(--dim); font-weight: 600; }
td { white-space: nowrap; }
th:first-child, td:first-child { position: sticky; left: 0; background: var(--paper); }
.right { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink); }
svg .role-axis line, svg .role-axis-domain line { stroke: var(--line); }
</style></head><body>
<h1>{{ page.title }}</h1>
{% if page.subtitle %}<p class="dim">{{ page.subtitle }}</p>{% endif %}
<main>
{% for section in page.sections if section.shown %}
<section class="{{ 'plot' if section.svg else 'wide' }}">
{% if section.heading %}<h2>{{ section.heading }}</h2>{% endif %}
{% for paragraph in section.text %}<p>{{ paragraph }}</p>{% endfor %}
{% if section.table %}{% set sides = section.table.sides %}
<div class="scroll" tabindex="0"><table>
<thead><tr>{% for cell in section.table.header %}
<th class="{{ sides[loop.index0] }}">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in section.table.rows %}
<tr>{% for cell in row.values() %}
<td class="{{ sides[loop.index0] }}">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% if section.bullets %}<ul>{% for bullet in section.bullets %}
<li>{{ bullet }}</li>{% endfor %}</ul>{% endif %}
{{ section.svg | safe }}
</section>
{% endfor %}</main>
</body></html>
"""
