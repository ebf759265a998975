"""`eapo eval`: scores of a policy on the recipe's task or on benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DataOption,
    GraphOption,
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
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eapo_agents.runs.grading import Evaluation


BaselineOption = Annotated[
    str | None,
    typer.Option("--baseline", help="Folder of an earlier evaluation to compare with."),
]
BenchmarksOption = Annotated[
    str | None,
    typer.Option(
        "--benchmarks",
        "-b",
        help="Names such as gsm8k,humaneval; default: the recipe's task.",
        autocompletion=completion.benchmarks,
    ),
]
SamplesOption = Annotated[
    int | None, typer.Option("--samples", min=1, help="Answers of each problem.")
]
TemperatureOption = Annotated[
    float | None, typer.Option("--temperature", min=0.0, help="Sampling temperature; 0 is greedy.")
]
TopPOption = Annotated[
    float | None, typer.Option("--top-p", min=0.0, max=1.0, help="Nucleus sampling.")
]
TokensOption = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="Tokens of a turn, at most.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Problems of each benchmark; always the same ones."),
]
OnlyOption = Annotated[
    str | None,
    typer.Option("--only", help="Ids of the problems to answer: a,b. Of one benchmark."),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Rollouts in flight at once.")
]
AssistedOption = Annotated[
    bool,
    typer.Option("--assisted", help="Evaluate with all experts' help too; show the gap."),
]


def evaluate(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    baseline: BaselineOption = None,
    benchmarks: BenchmarksOption = None,
    data: DataOption = [],  # noqa: B006
    samples: SamplesOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    max_new_tokens: TokensOption = None,
    limit: LimitOption = None,
    only: OnlyOption = None,
    concurrency: ConcurrencyOption = None,
    assisted: AssistedOption = False,
    judge: JudgeOption = None,
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    out: OutOption = Path("runs/eval"),
    as_json: JsonOption = False,
) -> None:
    """Score the policy without experts, on the recipe's task or on benchmarks, with intervals. The
    same command continues."""
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.evaluation import evaluate as run

    evaluation = run(
        resolved(recipe, overrides, policy, graph),
        out,
        progress=TERMINAL,
        benchmarks=_names(benchmarks),
        data=data_files(data),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        limit=limit,
        only=None if only is None else [one.strip() for one in only.split(",") if one.strip()],
        concurrency=concurrency,
        assisted=assisted,
        baseline=baseline,
        judge=judge,
        sandbox=sandbox,
        unsafe_code=unsafe_code,
    )
    print_evaluation(evaluation, as_json=as_json)


def _names(benchmarks: str | None) -> list[str]:
    names = [name.strip() for name in (benchmarks or "").split(",") if name.strip()]
    if benchmarks is not None and not names:
        raise UsageError("--benchmarks names nothing: give names such as gsm8k,humaneval.")
    return names


def data_files(given: list[str]) -> dict[str, str]:
    """Return `--data gsm8k=test.jsonl` as name and file."""
    from evals.benchmarks import find_benchmark, is_benchmark

    found = {}
    for item in given:
        name, separator, file = item.partition("=")
        if not separator or not file:
            raise UsageError(f"--data must be BENCHMARK=FILE, got '{item}'.")
        found[find_benchmark(name).name if is_benchmark(name) else name] = file
    return found


def print_evaluation(evaluation: Evaluation, *, as_json: bool) -> None:
    """Print an evaluation: one JSON object, or a table with what stands beside it."""
    import json

    if as_json:
        print(json.dumps(evaluation.to_json()))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from evals.bench_report import score_table

    screen = Console()
    if not screen.is_terminal:
        screen = Console(width=120)
    scores = score_table(evaluation.scores)
    table = Table()
    for name in scores.header:
        table.add_column(name, no_wrap=True)
    for row in scores.cells():
        table.add_row(*map(Text, row))
    screen.print(table)
    for line in _lines(evaluation):
        screen.print(line, markup=False, soft_wrap=True)


def _lines(evaluation: Evaluation) -> Iterator[str]:
    """What stands beside the table."""
    from evals.bench_report import missing_lines, published, run_again_lines
    from evals.tables import difference_text

    results = evaluation.results
    for key, score in results.results.items():
        yield from (f"{key}: {name}: {value}" for name, value in published(score).items())
        if score.gap is not None:
            yield f"{key}: {difference_text(score.gap)} to solo"
    yield from missing_lines(results)
    yield from run_again_lines(results)
    if evaluation.paired is not None:
        for key, compared in evaluation.paired.benchmarks.items():
            yield f"{key}: {difference_text(compared.paired)} to {evaluation.paired.a.folder}"
    for key, ids in (results.changed or {}).items():
        names = f": {', '.join(ids[:20])}" if ids else ""
        yield f"{key}: {len(ids)} verdicts changed{names}"
    if results.judge is not None:
        for line in results.judge.costs:
            cost = line["cost_usd"]
            money = f"${cost:.4f}" if isinstance(cost, float | int) else "unpriced"
            yield f"judge {results.judge.judge}: {line['calls']} calls, {money}"
    yield f"Report: {evaluation.out / 'report.html'}, report.md, results.json"
