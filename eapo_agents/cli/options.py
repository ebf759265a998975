"""Options that commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_RECIPE = "cpu-smol"
DEFAULT_STORE = "runs/traces.db"

RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="Recipe file, or a recipe's name.")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override a recipe's key: --set train.steps=3. Repeatable."),
]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="Trained policy's folder (its adapter).")
]
StoreOption = Annotated[
    str, typer.Option("--store", help="Trace store: a file, or an SQLAlchemy URL.")
]
RunArgument = Annotated[Path, typer.Argument(help="Folder of a training run or of a study.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SandboxOption = Annotated[
    str,
    typer.Option("--sandbox", help="For a model's code: auto, bubblewrap, docker or podman."),
]
UnsafeOption = Annotated[
    bool, typer.Option("--unsafe-code", help="Run a model's code without any sandbox, this once.")
]
JudgeOption = Annotated[
    str | None, typer.Option("--judge", help="Expert of the recipe that grades (SimpleQA, HLE).")
]
DataOption = Annotated[
    list[str],
    typer.Option("--data", help="Upstream's file: --data gsm8k=test.jsonl. Repeatable."),
]


def resolved(name: str, overrides: list[str], policy: str | None) -> Any:
    """The recipe with its overrides, and the policy that was named."""
    from eapo_agents.recipe_file import load_recipe

    extra = [f"policy.adapter={json.dumps(policy)}"] if policy else []
    return load_recipe(name, [*overrides, *extra])
