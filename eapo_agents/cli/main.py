"""The `eapo` command: thin functions over the packages, every heavy import inside the command that
needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import eapo_agents
from eapo_agents.cli import experts, measuring, serve, studying, traces
from eapo_agents.cli.options import (
    DEFAULT_RECIPE,
    DEFAULT_STORE,
    JsonOption,
    OutOption,
    PolicyOption,
    RecipeOption,
    SetOption,
    StoreOption,
    resolved,
)
from eapo_agents.errors import EapoError

app = typer.Typer(
    name="eapo",
    help="Train a language model to do without the experts that it asks while it trains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(traces.app, name="traces")
app.add_typer(experts.app, name="experts")

_INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eapo {eapo_agents.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    question: Annotated[str, typer.Argument(help="What to ask, such as 'What is 7 + 3 * 4?'.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    solo: Annotated[bool, typer.Option("--solo", help="Without experts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Asks the agent one question and shows its turns as they happen."""
    from eapo_agents.cli import run as one

    one.run(resolved(recipe, overrides, policy), question, solo=solo, as_json=as_json)


@app.command(name="chat")
def talk(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    thread: Annotated[
        str | None, typer.Option("--thread", help="Go on with this conversation.")
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", "-c", help="Go on with the latest conversation.")
    ] = False,
    list_threads: Annotated[
        bool, typer.Option("--threads", help="List the conversations and end.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Talks with the agent: experts side by side, threads that are kept, ratings that train."""
    from eapo_agents.cli import chat

    chat.chat(
        resolved(recipe, overrides, policy),
        thread=thread,
        go_on=go_on,
        list_threads=list_threads,
        store_at=store,
    )


@app.command(name="warm-start")
def warm_start(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    out: OutOption = Path("runs/warm_start"),
    as_json: JsonOption = False,
) -> None:
    """Teaches the policy the formats of calls and answers, from a few scripted episodes."""
    from eapo_agents.cli import commands

    commands.warm_start(resolved(recipe, overrides, policy), out, as_json=as_json)


@app.command()
def collect(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    store: StoreOption = DEFAULT_STORE,
    run_id: Annotated[
        str | None,
        typer.Option("--run-id", help="Name of the collection; the same name resumes it."),
    ] = None,
    step: Annotated[
        int, typer.Option("--step", min=0, help="Training step whose schedules apply.")
    ] = 1,
    shard: Annotated[
        str | None,
        typer.Option("--shard", help="i/n: only the i-th of n equal parts of the problems."),
    ] = None,
    ray_tasks: Annotated[
        int | None,
        typer.Option(
            "--ray", min=1, help="Collect by this many tasks of the Ray cluster at RAY_ADDRESS."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Runs problems x G rollouts of the consult graph into a trace store."""
    from eapo_agents.cli import collecting

    whole = resolved(recipe, overrides, policy)
    name = run_id or f"collect-{whole.name}"
    collecting.collect(whole, store, name, step, shard=shard, ray_tasks=ray_tasks, as_json=as_json)


@app.command()
def train(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    out: OutOption = Path("runs/train"),
    from_traces: Annotated[
        str | None,
        typer.Option("--from-traces", help="Train on this store's collections, without rollouts."),
    ] = None,
    run_id: Annotated[
        str | None, typer.Option("--run-id", help="With --from-traces: only this collection.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what a live run will take at most.")
    ] = False,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="With --dry-run: training processes.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Trains the policy: on rollouts of its own, or on logged ones. The same command resumes."""
    from eapo_agents.cli import commands

    if dry_run:
        commands.dry_run(resolved(recipe, overrides, policy), processes, as_json=as_json)
        return
    commands.train(resolved(recipe, overrides, policy), out, from_traces, run_id, as_json=as_json)


@app.command()
def demo(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    out: OutOption = Path("runs/demo"),
    as_json: JsonOption = False,
) -> None:
    """The whole of EAPO on a small model: evaluate, train with experts, evaluate without them.
    Resumes."""
    from eapo_agents.cli.demo import run_demo

    run_demo(resolved(recipe, overrides, None), out, as_json=as_json)


app.command()(serve.serve)
measuring.add_to(app)
studying.add_to(app)


def main() -> None:
    """Entry point: errors of ours become one line on stderr and their exit status."""
    try:
        if app(standalone_mode=False) == _INTERRUPTED:  # Typer's way to tell of a Ctrl-C
            raise KeyboardInterrupt
    except EapoError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Interrupted. The same command goes on where this one stopped.", _INTERRUPTED)
    except typer.Abort:
        _fail("Interrupted.", _INTERRUPTED)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            error.show() if hasattr(error, "show") else print(error, file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 2))
        raise


def _fail(message: str, exit_code: int) -> None:
    from eapo_agents.cli.output import safe_text

    print(f"eapo: {safe_text(message)}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
