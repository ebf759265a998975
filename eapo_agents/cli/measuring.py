"""The commands that measure: `eval`, `rescore`, `compare`, `benchmarks`, `score`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    app.command(name="eval")(evaluate)
    app.command(name="benchmarks")(list_benchmarks)
    for command in (score, rescore, compare):
        app.command()(command)


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
    """Scores the policy without experts, on the recipe's task or on benchmarks, with intervals."""
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
        from eapo_agents.cli import evaluation

        evaluation.evaluate(resolved(recipe, overrides, policy), out, baseline, as_json=as_json)
        return
    if baseline is not None:
        from eapo_agents.errors import UsageError

        raise UsageError(
            "--baseline is for the recipe's task: compare benchmark runs with `eapo compare A B`."
        )
    from eapo_agents.cli import benchmarks as bench

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
    bench.run(resolved(recipe, overrides, policy), options, as_json=as_json)


def rescore(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A benchmark run's folder.")],
    data: DataOption = [],  # noqa: B006
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Grades a benchmark run's saved answers again, without the policy."""
    from eapo_agents.cli.benchmarks import data_option
    from eapo_agents.cli.rescoring import rescore as grade_again

    grade_again(
        run_folder,
        resolved(recipe, overrides, None) if judge else None,
        data=data_option(data),
        judge=judge,
        sandbox=sandbox,
        unsafe=unsafe_code,
        as_json=as_json,
    )


def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B")],
    as_json: JsonOption = False,
) -> None:
    """Compares two benchmark runs problem by problem, B - A; refuses where settings differ."""
    from eapo_agents.cli import benchmarks as bench

    bench.compare(run_a, run_b, as_json=as_json)


def list_benchmarks(
    name: Annotated[str | None, typer.Argument(help="Show one: its protocol and a prompt.")] = None,
    gold: Annotated[str | None, typer.Option("--gold", help="Upstream's file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the benchmarks, or shows one as it would be asked."""
    from eapo_agents.cli import scoring

    scoring.show_benchmarks(name, gold, as_json=as_json)


def score(
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="Such as humaneval, gsm8k.")],
    predictions: Annotated[
        str, typer.Option("--predictions", help="Answers, in the benchmark's upstream format.")
    ],
    gold: Annotated[
        str | None,
        typer.Option("--gold", help="Upstream's file; else EAPO_DATA is searched, then the hub."),
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="List each problem's score.")] = False,
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Answers graded at once.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Scores answers made elsewhere, without a model: what the benchmark's own script would say."""
    from eapo_agents.cli import scoring

    scoring.score(
        benchmark,
        gold,
        predictions,
        with_items=items,
        judge=judge,
        recipe=resolved(recipe, overrides, None) if judge else None,
        sandbox=sandbox,
        unsafe=unsafe_code,
        workers=workers,
        as_json=as_json,
    )


def _refuse_benchmark_options(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        from eapo_agents.errors import UsageError

        raise UsageError(
            f"{', '.join(given)} belong to --benchmarks, which was not given: name some, or set "
            "the recipe's eval section (--set eval.samples=4)."
        )
