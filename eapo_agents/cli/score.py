"""`eapo score`: answers that were made elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    JudgeOption,
    RecipeOption,
    SandboxOption,
    SetOption,
    UnsafeOption,
    resolved,
)

if TYPE_CHECKING:
    from eapo_agents.runs.scoring import ScoredAnswers

_Benchmark = Annotated[
    str,
    typer.Option(
        "--benchmark",
        "-b",
        help="Such as humaneval, gsm8k.",
        autocompletion=completion.benchmarks,
    ),
]
_JudgeAgain = Annotated[
    bool,
    typer.Option(
        "--judge-again",
        help="Let the judge grade what the file has grades for too, and report the agreement.",
    ),
]


def score(
    benchmark: _Benchmark,
    predictions: Annotated[
        str, typer.Option("--predictions", help="Answers, in the benchmark's upstream format.")
    ],
    gold: Annotated[
        str | None,
        typer.Option("--gold", help="Upstream's file; else EAPO_DATA is searched, then the hub."),
    ] = None,
    answer_field: Annotated[
        str | None,
        typer.Option("--answer-field", help="Field of the predictions that the model wrote."),
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="List each problem's score.")] = False,
    judge: JudgeOption = None,
    judge_again: _JudgeAgain = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    sanitize: Annotated[
        bool,
        typer.Option("--sanitize", help="Clean programs by evalplus's sanitiser first."),
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Answers graded at once.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score answers made elsewhere, without a model: what the benchmark's own script would say."""
    import json

    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs import scoring

    found = scoring.score(
        benchmark,
        predictions,
        gold=gold,
        answer_field=answer_field,
        with_items=items,
        judge=judge,
        judge_again=judge_again,
        recipe=resolved(recipe, overrides, None) if judge else None,
        sandbox=sandbox,
        unsafe_code=unsafe_code,
        sanitize=sanitize,
        workers=workers,
        progress=TERMINAL,
    )
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        _print(found)


def _print(found: ScoredAnswers) -> None:
    from eapo_agents.cli.output import safe_text

    print(f"{found.title}: {found.n} problems, {found.missing} without an answer")
    if found.sanitized_by:
        print(f"Programs cleaned by {found.sanitized_by}")
    for metric, value in found.metrics.items():
        print(f"{metric:20} {value:.4f}")
    if found.agreement is not None:
        print(
            f"The judge agrees with {found.agreement.equal} of {found.agreement.answers} grades of "
            "the file."
        )
    for item in found.items or ():
        note = safe_text(str(item.get("note", "")))
        print(f"{item['id']:30} {item['score']:.4f}  {note}".rstrip())
