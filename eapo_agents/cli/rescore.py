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
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of an evaluation.")],
    data: DataOption = [],  # noqa: B006  # Typer's way
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Grade an evaluation's saved answers again, without the policy. Of an interrupted one, what
    there is is graded, and the missing answers are counted."""
    from eapo_agents.cli.eval import data_files, print_evaluation
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.rescoring import rescore as grade_again

    evaluation = grade_again(
        run_folder,
        data=data_files(data),
        judge=judge,
        recipe=resolved(recipe, overrides, None) if judge else None,
        sandbox=sandbox,
        unsafe_code=unsafe_code,
        progress=TERMINAL,
    )
    print_evaluation(evaluation, as_json=as_json)
