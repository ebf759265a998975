"""`eapo env`: what a report of a fault should say, and every name that a recipe may use."""

from __future__ import annotations

from eapo_agents.cli.options import JsonOption


def env(as_json: JsonOption = False) -> None:
    """Show versions, devices, the sandbox and every name that a recipe may use."""
    import json

    from eapo_agents.cli.output import safe_text
    from eapo_agents.runs.surroundings import surroundings

    found = surroundings()
    if as_json:
        print(json.dumps(found))
        return
    for title, facts in found.items():
        print(title)
        for name, value in facts.items():
            said = ", ".join(value) if isinstance(value, list) else value
            print(f"  {name:24} {safe_text(said)}")
