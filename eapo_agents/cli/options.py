"""Options that commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from eapo_agents.cli import completion

if TYPE_CHECKING:
    from eapo_agents.recipe import Recipe
    from evals.page import Page

DEFAULT_RECIPE = "cpu-smol"
FIRST_LOOK = "quick"
"""Its model comes with the package, trained."""
DEFAULT_STORE = "runs/traces.db"

RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        help="Recipe: a name or a file. Add arms with +: NAME+ARM.",
        autocompletion=completion.recipes,
    ),
]
AnyRecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        help=f"Recipe: a name or a file. Add arms with +: NAME+ARM. By default {DEFAULT_RECIPE}; "
        f"{FIRST_LOOK} where nothing else is given.",
        show_default=False,
        autocompletion=completion.recipes,
    ),
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override a key of the recipe: --set train.steps=3. Repeatable."),
]
PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy", help="Folder of a trained policy.", autocompletion=completion.policies
    ),
]
GraphOption = Annotated[
    str | None,
    typer.Option(
        "--graph",
        help="Graph of yours: package.module:function, or a shipped name.",
        autocompletion=completion.graphs,
    ),
]
StoreOption = Annotated[
    str, typer.Option("--store", help="Trace store: a file, or an SQLAlchemy URL.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
FormatOption = Annotated[
    Literal["markdown", "csv", "latex"],
    typer.Option(
        "--format",
        help="What is printed: the report, or its tables as CSV, or for LaTeX with booktabs.",
    ),
]
RetryFailedOption = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Run every failed rollout again. Without it: those that the infrastructure failed.",
    ),
]
SandboxOption = Annotated[
    str,
    typer.Option(
        "--sandbox", help="Sandbox for a model's code: auto, bubblewrap, docker or podman."
    ),
]
UnsafeOption = Annotated[
    bool, typer.Option("--unsafe-code", help="Run a model's code without a sandbox, this once.")
]
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        help="Expert of the recipe that grades SimpleQA and HLE.",
        autocompletion=completion.experts,
    ),
]
DataOption = Annotated[
    list[str],
    typer.Option(
        "--data", help="File of a benchmark's problems: --data gsm8k=test.jsonl. Repeatable."
    ),
]


def resolved(
    name: str, overrides: list[str], policy: str | None, graph: str | None = None
) -> Recipe:
    """Return the recipe with its overrides, the given policy and the given graph."""
    from eapo_agents.recipe_file import load_recipe

    extra = [f"policy.adapter={json.dumps(policy)}"] if policy else []
    return load_recipe(name, with_graph([*overrides, *extra], graph))


def with_graph(overrides: list[str], graph: str | None) -> list[str]:
    """Return the overrides, with what --graph stands for."""
    return [*overrides, *([f"graph={json.dumps(graph)}"] if graph else [])]


def retrying(overrides: list[str], retry_failed: bool) -> list[str]:
    """Return the overrides, with what --retry-failed stands for."""
    return [*overrides, *(["rollouts.retry_failed=all"] if retry_failed else [])]


def talk_recipe(recipe: str | None, *others: object) -> str:
    """Return the recipe to talk with: one that answers at once where nothing was chosen."""
    return recipe or (DEFAULT_RECIPE if any(others) else FIRST_LOOK)


def in_format(page: Page, wanted: str) -> str:
    """Return a report, or its tables, as --format has it."""
    from evals.tables import Table

    writers = {"csv": Table.csv, "latex": Table.latex}
    return page.tables(writers[wanted]) if wanted in writers else page.markdown()
