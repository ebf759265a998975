"""`eapo rescore`: saved answers, graded again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DataOption,
    JsonOption,
    JudgeOption,
    RecipeOption,
    SandboxOption,
    SetOption,
    UnsafeOption,
    resolved,
)


def rescore(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A benchmark run's folder.")],
    data: DataOption = [],  # noqa: B006  # Typer's way
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Grade a benchmark run's saved answers again, without the policy."""
    from eapo_agents.cli.eval import print_graded
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.benchmark_runs import data_option
    from eapo_agents.runs.rescoring import rescore as grade_again

    graded = grade_again(
        run_folder,
        resolved(recipe, overrides, None) if judge else None,
        data=data_option(data),
        judge=judge,
        sandbox=sandbox,
        unsafe=unsafe_code,
        progress=TERMINAL,
    )
    print_graded(graded, as_json=as_json)
