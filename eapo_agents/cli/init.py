"""`eapo init`: a new project of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(help="New folder of the project.")],
    problems: Annotated[
        Path | None,
        typer.Option("--problems", help="File of id, question, answer, grader; copied."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="Model folder, or a name on the hub.")
    ] = "SmolLM2-135M-Instruct",
    expert: Annotated[
        str | None,
        typer.Option("--expert", help="reference (the problems' own solutions) or openai-chat."),
    ] = None,
) -> None:
    """Write a recipe, problems, a reward and a README that run as they are."""
    from eapo_agents.runs.new_project import new_project

    for file in new_project(folder, problems=problems, model=model, expert=expert):
        print(file)
    print(f"Next: cd {folder}, then eapo doctor -r recipe.yaml --ask")
