"""`eapo models`: what a model can do as a policy, and which are here."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli.options import JsonOption

app = typer.Typer(
    help="Show models: what one can do as a policy, and which are here.", no_args_is_help=True
)


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="Model folder, or its name on the hub.")],
    template: Annotated[
        list[str],
        typer.Option("--template", help="A variable of the chat template, as KEY=VALUE."),
    ] = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """Show how a model writes calls, replies and thoughts. Exit with status 5 if it cannot be a
    policy. No weights are read."""
    import json
    import sys
    from dataclasses import asdict

    from eapo_agents.cli.output import safe_text
    from eapo_agents.policy.model_check import check_model

    found = check_model(model, _variables(template))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        for title, value in found.facts.items():
            first, *others = safe_text(value).splitlines() or [""]
            print("\n".join([f"{title:22} {first}", *(f"{'':22} {line}" for line in others)]))
        for note in found.notes:
            print(f"Note: {note}")
        for reason in found.blocking:
            print(f"Blocking: {safe_text(reason)}")
        if found.example:
            print(f"\nThe prompt behind two replies:\n{safe_text(found.example)}")
    if found.blocking:
        sys.exit(5)


@app.command("ls")
def list_models(
    server: Annotated[
        list[str], typer.Option("--server", help="A vLLM server to ask what it serves.")
    ] = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """List the models that are here: embedded, in the hub's cache, served."""
    import json

    from eapo_agents.cli.output import safe_text
    from eapo_agents.policy.local_models import local_models

    found = local_models(server)
    if as_json:
        print(json.dumps({"models": [{"name": name, "place": place} for name, place in found]}))
        return
    for name, place in found:
        print(f"{safe_text(name):50} {place}")


def _variables(given: list[str]) -> dict[str, object]:
    import yaml

    from eapo_agents.errors import UsageError

    found: dict[str, object] = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals:
            raise UsageError(f"--template takes KEY=VALUE, got '{one}'.")
        found[key] = yaml.safe_load(value)
    return found
