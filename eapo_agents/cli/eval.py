"""`eapo eval`: scores of a policy on the recipe's task or on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DataOption,
    JsonOption,
    JudgeOption,
    OutOption,
    PolicyOption,
    RecipeOption,
    SandboxOption,
    SetOption,
    UnsafeOption,
    resolved,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eapo_agents.runs.rescoring import Graded


def evaluate(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Evaluation to compare with: an --out folder's eval.json."),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            "--benchmarks", "-b", help="Such as aime24,humaneval; else the recipe's task."
        ),
    ] = None,
    data: DataOption = [],  # noqa: B006
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="A problem.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0)] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.0, max=1.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1)] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Problems a benchmark; always the same.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Samples in flight at once.")
    ] = None,
    assisted: Annotated[
        bool, typer.Option("--assisted", help="Also with every expert's help, and the gap.")
    ] = False,
    judge: JudgeOption = None,
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    out: OutOption = Path("runs/eval"),
    as_json: JsonOption = False,
) -> None:
    """Score the policy without experts, on the recipe's task or on benchmarks, with intervals."""
    from eapo_agents.cli.output import show
    from eapo_agents.cli.progress import TERMINAL

    if benchmarks is None:
        _refuse_benchmark_options(
            {
                "--data": data,
                "--samples": samples,
                "--temperature": temperature,
                "--top-p": top_p,
                "--max-new-tokens": max_new_tokens,
                "--limit": limit,
                "--concurrency": concurrency,
                "--assisted": assisted,
                "--judge": judge,
                "--unsafe-code": unsafe_code,
            }
        )
        from eapo_agents.runs import evaluation

        result = evaluation.evaluate(
            resolved(recipe, overrides, policy), out, baseline=baseline, progress=TERMINAL
        )
        show(result if as_json else evaluation.readable(result), as_json=as_json)
        return
    if baseline is not None:
        from eapo_agents.errors import UsageError

        raise UsageError(
            "--baseline is for the recipe's task: compare benchmark runs with `eapo compare A B`."
        )
    from eapo_agents.runs import benchmark_runs as bench

    options = bench.Options(
        names=[name.strip() for name in benchmarks.split(",") if name.strip()],
        data=bench.data_option(data),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        limit=limit,
        concurrency=concurrency,
        assisted=assisted,
        judge=judge,
        sandbox=sandbox,
        unsafe=unsafe_code,
        out=out,
    )
    graded = bench.run(resolved(recipe, overrides, policy), options, progress=TERMINAL)
    print_graded(graded, as_json=as_json)


def _refuse_benchmark_options(options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        from eapo_agents.errors import UsageError

        raise UsageError(
            f"{', '.join(given)} belong to --benchmarks, which was not given: name some, or set "
            "the recipe's eval section (--set eval.samples=4)."
        )


def print_graded(graded: Graded, *, as_json: bool) -> None:
    """Print a graded run: one JSON object, or a table with what stands beside it."""
    import json

    report, judge, out = graded.report, graded.judge, graded.out
    results, changed = report["results"], report.get("changed", {})
    if as_json:
        short = {
            key: {k: v for k, v in r.items() if k != "per_problem"} for key, r in results.items()
        }
        print(json.dumps({**report, "results": short, "out": str(out)}))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from evals.bench_report import published, score_table
    from evals.tables import difference_text

    screen = Console()
    if not screen.is_terminal:
        screen = Console(width=120)
    scores = score_table(results)
    table = Table()
    for name in scores.header:
        table.add_column(name, no_wrap=True)
    for row in scores.cells():
        table.add_row(*map(Text, row))
    screen.print(table)
    for key, result in results.items():
        for name, value in published(result).items():
            screen.print(f"{key}: {name}: {value}", markup=False)
        if "gap" in result:
            screen.print(f"{key}: {difference_text(result['gap'])} to solo", markup=False)
    for key, ids in changed.items():
        names = f": {', '.join(ids[:20])}" if ids else ""
        screen.print(f"{key}: {len(ids)} verdicts changed{names}", markup=False)
    if judge is not None:
        for line in judge.costs():
            cost = line.get("cost_usd")
            money = "unpriced" if cost is None else f"${cost:.4f}"
            screen.print(f"judge {judge.name}: {line['calls']} calls, {money}", markup=False)
    screen.print(f"Report: {out / 'report.html'}, report.md, results.json", markup=False)
