"""`eapo recipe`: what ships, a recipe resolved, and every key."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import JsonOption, SetOption

app = typer.Typer(help="List recipes and arms, show one resolved, explain the keys.")


@app.command(name="list")
def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes and arms that can be named here."""
    from eapo_agents.recipe_docs import shipped

    found = shipped()
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        print(f"{one.kind:7} {one.name:18} {one.about}")


@app.command()
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Recipe file, or a name such as cpu-smol+eapo.",
            autocompletion=completion.recipes,
        ),
    ],
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """Print a recipe resolved: arms and overrides applied, every setting written out."""
    from eapo_agents.recipe_file import load_recipe, to_yaml

    whole = load_recipe(recipe, overrides)
    print(json.dumps(whole.model_dump(mode="json")) if as_json else to_yaml(whole), end="")


@app.command()
def keys() -> None:
    """Print every key of a recipe with its type, default and meaning, as Markdown."""
    from eapo_agents.recipe_docs import reference

    print(reference(), end="")
