"""`eapo doctor`: look at a project before anything slow starts."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    GraphOption,
    JsonOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    resolved,
)


def doctor(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    graph: GraphOption = None,
    ask: Annotated[
        bool, typer.Option("--ask", help="Ask each expert one question, which may cost money.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a recipe's problems, reward, model, experts and size; exit with 5 where it blocks."""
    import json
    from dataclasses import asdict

    from eapo_agents.cli.output import safe_text
    from eapo_agents.errors import DoctorError
    from eapo_agents.runs.checking import check
    from eapo_agents.runs.loading import quiet_libraries

    quiet_libraries()
    found = check(resolved(recipe, overrides, policy, graph), ask_experts=ask)
    if as_json:
        print(json.dumps({"findings": [asdict(finding) for finding in found]}))
    else:
        for finding in found:
            print(safe_text(f"{finding.verdict:9} {finding.part}: {finding.says}"))
    blocking = [finding for finding in found if finding.verdict == "blocking"]
    if blocking:
        raise DoctorError(
            f"{len(blocking)} blocking finding(s), the first of {blocking[0].part}: "
            f"{blocking[0].says}"
        )
