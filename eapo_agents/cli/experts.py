"""`eapo experts`: who they are, whether they answer, what they have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli.options import DEFAULT_RECIPE, JsonOption, RecipeOption, SetOption

if TYPE_CHECKING:
    from eapo_agents.experts.costs import Costs
    from eapo_agents.experts.expert import Answer, Expert
    from eapo_agents.experts.pool import ExpertPool

app = typer.Typer(
    help="Show the experts: who they are, whether they answer, what they cost.",
    no_args_is_help=True,
)

DEFAULT_LEDGER = "runs/experts.db"
PING = "1 + 1"


@app.command("ls")
def list_experts(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    as_json: JsonOption = False,
) -> None:
    """List a recipe's experts and their settings."""
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
    """Ask every expert one question, without stored replies. Exit with status 1 if one fails."""
    import asyncio

    from eapo_agents.errors import ExpertError
    from eapo_agents.experts.pool import ExpertPool

    pool = _pool(recipe, overrides)
    asked = [
        e.model_copy(update={"identity": None, "fallback": None})
        for e in pool.experts
        if not e.interactive
    ]
    answers = asyncio.run(_ask_each(ExpertPool(asked), [e.name for e in asked], query))
    rows = [
        _answer_facts(expert.name, answer) for expert, answer in zip(asked, answers, strict=True)
    ]
    if as_json:
        _print_json({"query": query, "experts": rows})
    else:
        _print_table(rows)
    failed = [str(row["expert"]) for row in rows if row["status"] != "accepted"]
    if failed:
        raise ExpertError(f"{len(failed)} of {len(rows)} experts failed: {', '.join(failed)}.")


@app.command()
def cost(
    ledger: Annotated[
        str, typer.Argument(help="Ledger of a run: experts.db beside its traces.")
    ] = DEFAULT_LEDGER,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Count only this run.")] = None,
    by_step: Annotated[
        bool, typer.Option("--by-step", help="Print a line for each training step.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Sum up what the experts have cost: calls, tokens, money, latency, acceptance."""
    from eapo_agents.errors import UsageError
    from eapo_agents.experts.call_store import CallStore
    from eapo_agents.experts.costs import costs

    store = CallStore(ledger, create=False)
    runs = store.runs()
    if run_id is not None and run_id not in runs:
        raise UsageError(f"The ledger has no run '{run_id}': it has {', '.join(runs) or 'none'}.")
    lines = costs(store.rows(run_id), by_step=by_step)
    if as_json:
        summaries = [line.summary() for line in lines]
        _print_json({"runs": [run_id] if run_id else runs, "experts": summaries})
        return
    _print_table([_readable(line) for line in lines])


async def _ask_each(pool: ExpertPool, names: Sequence[str], query: str) -> list[Answer]:
    import asyncio

    from eapo_agents.experts.call_store import CallSite

    return await asyncio.gather(
        *(
            pool.ask(name, _arguments(pool, name, query), CallSite(slot=slot))
            for slot, name in enumerate(names)
        )
    )


def _arguments(pool: ExpertPool, name: str, query: str) -> dict[str, str]:
    """Return the query as the tool's first argument, whatever that is called."""
    tool = next(expert.tool for expert in pool.experts if expert.name == name)
    return {next(iter(tool.args), "query"): query}


def _facts(expert: Expert) -> dict[str, object]:
    from eapo_agents.cli.turn_view import money

    price = expert.price
    if price is not None and (price.input_usd or price.output_usd):
        rates = f"{price.input_usd:g}, {price.output_usd:g}"
    else:
        rates = money(None if price is None else 0)
    endpoints = len(expert.tools)
    return {
        "expert": expert.name,
        "kind": expert.kind + (f" x{endpoints}" if endpoints > 1 else ""),
        "$/M in, out": rates,
        "timeout": f"{expert.timeout_s:g} s",
        "fallback": expert.fallback or "",
        "stored": "yes" if expert.identity is not None else "no",
        "description": expert.tool.description,
    }


def _answer_facts(name: str, answer: Answer) -> dict[str, object]:
    return {
        "expert": name,
        "status": answer.status.value,
        "latency_s": round(answer.latency_s, 3),
        "tokens": answer.usage.prompt_tokens + answer.usage.completion_tokens,
        "cost_usd": answer.cost_usd,
        "reply": (answer.error or answer.text)[:120],
    }


def _readable(line: Costs) -> dict[str, object]:
    from eapo_agents.cli.turn_view import money

    row = line.summary()

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


def _pool(recipe: str, overrides: Sequence[str]) -> ExpertPool:
    from eapo_agents.recipe_file import load_recipe

    loaded = load_recipe(recipe, overrides)
    from graphs.agent import make_pool

    return make_pool(loaded)


def _print_table(rows: Sequence[Mapping[str, object]]) -> None:
    from rich.console import Console

    from eapo_agents.cli.turn_view import table_of

    Console(highlight=False).print(table_of(rows))


def _print_json(value: Mapping[str, object]) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False))
