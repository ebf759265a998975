"""`eapo run`: one question."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import (
    AnyRecipeOption,
    GraphOption,
    JsonOption,
    PolicyOption,
    SetOption,
    resolved,
    talk_recipe,
)


def run(
    question: Annotated[str, typer.Argument(help="What to ask, such as 'What is 7 + 3 * 4?'.")],
    recipe: AnyRecipeOption = None,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    solo: Annotated[bool, typer.Option("--solo", help="Answer without experts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ask the agent one question and show its turns as they happen."""
    from eapo_agents.cli import run_once

    chosen = talk_recipe(recipe, overrides, policy, graph)
    run_once.run(resolved(chosen, overrides, policy, graph), question, solo=solo, as_json=as_json)
