"""Reports of a benchmark run: a table for the terminal, Markdown, and one HTML file with plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.benchmarks import find_benchmark

HEADER = ("benchmark", "metric", "score", "95% interval", "n", "samples", "in form", "cut off")

_PAGE = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c2430; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d7dce3; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.scores td:nth-child(n+3), .scores th:nth-child(n+3) { text-align: right;
  font-variant-numeric: tabular-nums; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.dim { color: #5b6675; } svg { max-width: 100%; height: auto; }
</style></head><body>
<h1>{{ title }}</h1>
<p class="dim">{{ subtitle }}</p>
<table class="scores"><tr>{% for cell in header %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% for heading, svg in plots %}<h2>{{ heading }}</h2>{{ svg | safe }}{% endfor %}
{% for heading, facts in details %}<h2>{{ heading }}</h2><table>
{% for name, value in facts %}<tr><td>{{ name }}</td><td class="number">{{ value }}</td></tr>
{% endfor %}</table>{% endfor %}
</body></html>
"""


def table_rows(results: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A line for each benchmark and mode."""
    return [
        [
            key,
            r["metric"],
            _percent(r["score"]),
            f"[{r['ci95'][0]:.1%}, {r['ci95'][1]:.1%}]",
            str(r["n"]),
            str(r["samples"]),
            f"{r['formatted']:.0%}",
            f"{r['cut_off']:.0%}",
        ]
        for key, r in results.items()
    ]


def facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What else one benchmark's run gave, name and value."""
    found = [(name, _percent(value)) for name, value in result["metrics"].items()]
    low, high = result["ci95_clustered"]
    found.append(("95% interval, clustered standard error", f"[{low:.1%}, {high:.1%}]"))
    if "variance" in result:
        found.append((f"mean over {result['samples']} samples", _percent(result["score"])))
        found.append(("variance over samples", f"{result['variance']:.4f}"))
        found.append(("majority vote", _percent(result["majority"])))
        found += [(f"pass@{k}", _percent(v)) for k, v in result["pass_at"].items() if k != "1"]
    if result.get("gap") is not None:
        gap = result["gap"]
        low, high = (100 * bound for bound in gap["ci95"])
        found.append(
            (
                "assisted - solo",
                f"{100 * gap['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]",
            )
        )
    found += [
        (f"{name} (published; another policy)", f"{value:.2f}%")
        for name, value in find_benchmark(result["benchmark"]).published.items()
    ]
    found.append(("sampled tokens", f"{result['sampled_tokens']:,}"))
    if result["consultations"]:
        found.append(("consultations", f"{result['consultations']:,}"))
    found.append(("seconds", f"{result['seconds']:.0f}"))
    return found


def bench_markdown(run: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> str:
    """The report for people and repositories."""
    lines = [
        f"# {_title(run)}",
        "",
        _subtitle(run),
        "",
        _line(HEADER),
        _line(["---"] * len(HEADER)),
        *(_line(row) for row in table_rows(results)),
    ]
    for key, result in results.items():
        lines += [
            "",
            f"## {result['title']}, {key.rpartition(' ')[2] if ' ' in key else 'solo'}",
            "",
        ]
        lines += ["| | |", "| --- | --- |", *(_line(fact) for fact in facts(result))]
    return "\n".join([*lines, ""])


def bench_html(run: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]) -> str:
    """One file that needs no network. Everything is escaped; plots need the `bench` extra."""
    from jinja2 import Environment

    page = Environment(autoescape=True).from_string(_PAGE)
    return page.render(
        title=_title(run),
        subtitle=_subtitle(run),
        header=HEADER,
        rows=table_rows(results),
        plots=_plots(results),
        details=[(f"{r['title']} ({key})", facts(r)) for key, r in results.items()],
    )


def _plots(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    try:
        import altair
        import vl_convert
    except ImportError:
        return []
    scores = [
        {"run": key, "score": r["score"], "low": r["ci95"][0], "high": r["ci95"][1]}
        for key, r in results.items()
    ]
    base = altair.Chart(altair.Data(values=scores)).encode(
        y=altair.Y("run:N", title=None, sort=None)
    )
    x = altair.X("score:Q", title="score, with 95% interval", scale=altair.Scale(domain=[0, 1]))
    bars = base.mark_bar(color="#4477aa", opacity=0.8).encode(x=x.axis(format="%"))
    whiskers = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q")
    plots = [("Scores", bars + whiskers)]
    sampled = {key: r for key, r in results.items() if r["samples"] > 1}
    if sampled:
        curves = [
            {"run": key, "k": int(k), "pass@k": value}
            for key, r in sampled.items()
            for k, value in r["pass_at"].items()
        ]
        plots.append(
            (
                "pass@k",
                altair.Chart(altair.Data(values=curves))
                .mark_line(point=True)
                .encode(
                    x=altair.X(
                        "k:Q",
                        scale=altair.Scale(type="log", base=2),
                        axis=altair.Axis(values=sorted({c["k"] for c in curves}), format="d"),
                    ),
                    y=altair.Y("pass@k:Q", axis=altair.Axis(format="%")),
                    color=altair.Color("run:N", title=None),
                ),
            )
        )
        plots.append(("Share of right answers a problem", _histogram(altair, sampled)))
    return [
        (
            heading,
            vl_convert.vegalite_to_svg(
                chart.properties(width=560, height=_height(heading, results)).to_json()
            ),
        )
        for heading, chart in plots
    ]


def _height(heading: str, results: Mapping[str, Any]) -> int:
    return 24 * len(results) if heading == "Scores" else 200


def _histogram(altair: Any, results: Mapping[str, Mapping[str, Any]]) -> Any:
    values = [
        {"run": key, "share": share}
        for key, r in results.items()
        for share in r["per_problem"].values()
    ]
    return (
        altair.Chart(altair.Data(values=values))
        .mark_bar(opacity=0.7)
        .encode(
            x=altair.X("share:Q", bin=altair.Bin(maxbins=16), title="share of right samples"),
            y=altair.Y("count()", title="problems"),
            color=altair.Color("run:N", title=None),
        )
    )


def _title(run: Mapping[str, Any]) -> str:
    return f"Benchmarks of {run['policy']['model']}"


def _subtitle(run: Mapping[str, Any]) -> str:
    policy = run["policy"]
    return (
        f"weights {policy['weights'][:12]}, step {policy['step']}, seed {run['seed']}, "
        f"eapo-agents {run['package_version']}, {run['created_at']}"
    )


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in cells)} |"
