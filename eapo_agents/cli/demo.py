"""`eapo demo`: the whole method on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eapo_agents.cli.options import (
    JsonOption,
    OutOption,
    RecipeOption,
    SetOption,
    resolved,
)

_OUT = Path("runs/demo")
_RECIPE = "cpu-smol+short"


def demo(
    recipe: RecipeOption = _RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    out: OutOption = _OUT,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A look in half a minute: a model that comes trained with the package."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a small model, train it with experts, and evaluate it without them. The same command
    continues."""
    import json

    from eapo_agents.cli.progress import TERMINAL

    if quick:
        _quick(as_json, changed=recipe != _RECIPE or bool(overrides) or out != _OUT)
        return
    from eapo_agents.runs.demo import run_demo

    report, markdown = run_demo(resolved(recipe, overrides, None), out, progress=TERMINAL)
    print(json.dumps(report) if as_json else markdown)


def _quick(as_json: bool, *, changed: bool) -> None:
    import json
    from dataclasses import asdict

    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.cli.quick_view import lines
    from eapo_agents.errors import UsageError
    from eapo_agents.runs.quick_demo import quick_demo

    if changed:
        raise UsageError(
            "--quick shows the model that comes with the package and writes nothing: leave out "
            "--recipe, --set and --out."
        )
    found = quick_demo(TERMINAL)
    if as_json:
        told: dict[str, object] = {
            "before": found.before.summary(),
            "helped": found.helped.summary(),
            "after": found.after.summary(),
            "difference": found.difference,
            "training": asdict(found.training),
            "seconds": found.seconds,
        }
        print(json.dumps(told))
    else:
        print("\n".join(lines(found)))
