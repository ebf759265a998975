"""`eapo experts`: who they are, whether they answer, what they have cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="The experts: who they are, whether they answer, what they cost.", no_args_is_help=True
)

RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="Recipe file, or a name in ./recipes.")
]
SetOption = Annotated[list[str], typer.Option("--set", help="Override a recipe's key. Repeatable.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
DEFAULT_RECIPE = "cpu-smol"
DEFAULT_LEDGER = "runs/experts.db"
PING = "1 + 1"


@app.command("ls")
def list_experts(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """Lists a recipe's experts and their settings."""
    pool = _pool(recipe, overrides)
    facts = [_facts(expert) for expert in pool.experts]
    if as_json:
        _print_json({"experts": facts, "offered": [tool.name for tool in pool.tools]})
        return
    _print_table(facts)
    print(f"The policy can ask: {', '.join(tool.name for tool in pool.tools) or 'nobody'}.")


@app.command()
def ping(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    query: Annotated[str, typer.Option("--query", help="What to ask.")] = PING,
    as_json: JsonOption = False,
) -> None:
    """Asks every expert one question, past the stored replies; exit status 1 where one fails."""
    import asyncio
    from dataclasses import replace

    from eapo_agents.errors import ExpertError
    from eapo_agents.experts.pool import ExpertPool

    pool = _pool(recipe, overrides)
    asked = [replace(e, identity=None, fallback=None) for e in pool.experts if not e.interactive]
    answers = asyncio.run(_ask_each(ExpertPool(asked), [e.name for e in asked], query))
    rows = [
        _answer_facts(expert.name, answer) for expert, answer in zip(asked, answers, strict=True)
    ]
    if as_json:
        _print_json({"query": query, "experts": rows})
    else:
        _print_table(rows)
    failed = [row["expert"] for row in rows if row["status"] != "accepted"]
    if failed:
        raise ExpertError(f"{len(failed)} of {len(rows)} experts failed: {', '.join(failed)}.")


@app.command()
def cost(
    ledger: Annotated[
        str, typer.Argument(help="A run's expert ledger, experts.db beside its traces.")
    ] = DEFAULT_LEDGER,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Only this run.")] = None,
    by_step: Annotated[bool, typer.Option("--by-step", help="A line for each step.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sums up what the experts have cost: calls, tokens, money, latency, acceptance."""
    from eapo_agents.errors import UsageError
    from eapo_agents.experts.call_store import CallStore
    from eapo_agents.experts.costs import costs

    store = CallStore(ledger, create=False)
    runs = store.runs()
    if run_id is not None and run_id not in runs:
        raise UsageError(f"The ledger has no run '{run_id}': it has {', '.join(runs) or 'none'}.")
    rows = [line.summary() for line in costs(store.rows(run_id), by_step=by_step)]
    if as_json:
        _print_json({"runs": [run_id] if run_id else runs, "experts": rows})
        return
    _print_table([_readable(row) for row in rows])


async def _ask_each(pool: Any, names: Sequence[str], query: str) -> list[Any]:
    import asyncio

    from eapo_agents.experts.call_store import CallSite

    return await asyncio.gather(
        *(
            pool.ask(name, _arguments(pool, name, query), CallSite(slot=slot))
            for slot, name in enumerate(names)
        )
    )


def _arguments(pool: Any, name: str, query: str) -> dict[str, str]:
    """The query as the tool's first argument, whatever its name."""
    tool = next(expert.tool for expert in pool.experts if expert.name == name)
    return {next(iter(tool.args), "query"): query}


def _facts(expert: Any) -> dict[str, Any]:
    from eapo_agents.cli.turn_view import money

    price = expert.price
    paid = price is not None and (price.input_usd or price.output_usd)
    endpoints = len(expert.tools)
    return {
        "expert": expert.name,
        "kind": expert.kind + (f" x{endpoints}" if endpoints > 1 else ""),
        "$/M in, out": f"{price.input_usd:g}, {price.output_usd:g}"
        if paid
        else money(None if price is None else 0),
        "timeout": f"{expert.timeout_s:g} s",
        "fallback": expert.fallback or "",
        "stored": "yes" if expert.identity is not None else "no",
        "description": expert.tool.description,
    }


def _answer_facts(name: str, answer: Any) -> dict[str, Any]:
    return {
        "expert": name,
        "status": answer.status.value,
        "latency_s": round(answer.latency_s, 3),
        "tokens": answer.usage.prompt_tokens + answer.usage.completion_tokens,
        "cost_usd": answer.cost_usd,
        "reply": (answer.error or answer.text)[:120],
    }


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    from eapo_agents.cli.turn_view import money

    def seconds(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    step = {"step": row["step"]} if "step" in row else {}
    return {
        "expert": row["expert"],
        **step,
        **{name: row[name] for name in ("calls", "cached", "withheld", "failed", "tokens")},
        "cost": money(row["cost_usd"]),
        "p50 s": seconds(row["p50_s"]),
        "p99 s": seconds(row["p99_s"]),
        "accepted": "" if row["acceptance"] is None else f"{row['acceptance']:.0%}",
    }


def _pool(recipe: str, overrides: Sequence[str]) -> Any:
    from eapo_agents.recipe_file import load_recipe

    loaded = load_recipe(recipe, overrides)
    from graphs.agent import make_pool

    return make_pool(loaded)


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console

    from eapo_agents.cli.turn_view import table_of

    Console(highlight=False).print(table_of(rows))


def _print_json(value: dict[str, Any]) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False))
