"""`eapo benchmarks`: what there is, and how it is asked."""

from __future__ import annotations

from typing import Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import JsonOption


def list_benchmarks(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show one: its protocol and a prompt.", autocompletion=completion.benchmarks
        ),
    ] = None,
    gold: Annotated[str | None, typer.Option("--gold", help="Upstream's file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the benchmarks, or show one as it would be asked."""
    import json

    from eapo_agents.cli.output import safe_text
    from eapo_agents.runs import scoring

    if name is not None:
        facts = scoring.show_benchmark(name, gold)
        if as_json:
            print(json.dumps(facts))
            return
        for key, value in facts.items():
            print(f"{key:16} {safe_text(str(value))}")
        return
    rows = scoring.list_benchmarks()
    if as_json:
        print(json.dumps({"benchmarks": rows}))
        return
    for row in rows:
        print(f"{row['name']:15} {row['title']:34} {row['metric']:12} {row['licence']}")
