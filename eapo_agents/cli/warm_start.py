"""`eapo warm-start`: teach a policy to ask and to answer in the wanted form."""

from __future__ import annotations

from pathlib import Path

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    JsonOption,
    OutOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    resolved,
)


def warm_start(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    out: OutOption = Path("runs/warm_start"),
    as_json: JsonOption = False,
) -> None:
    """Teach the policy the formats of calls and answers, from a few scripted episodes."""
    from dataclasses import asdict

    from eapo_agents.cli.output import show
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.warm_starting import warm_start as teach

    started = teach(resolved(recipe, overrides, policy), out, progress=TERMINAL)
    show(asdict(started), as_json=as_json)
