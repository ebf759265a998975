"""`eapo demo`: the whole method on a small model."""

from __future__ import annotations

from pathlib import Path

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    OutOption,
    RecipeOption,
    SetOption,
    resolved,
)


def demo(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    out: OutOption = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """Evaluate a small model, train it with experts, and evaluate it without them. The same command
    continues."""
    import json

    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.demo import run_demo

    report, markdown = run_demo(resolved(recipe, overrides, None), out, progress=TERMINAL)
    print(json.dumps(report) if as_json else markdown)
