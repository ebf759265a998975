"""The `eapo` command: thin functions over the packages, every heavy import inside the command that
needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import eapo_agents
from eapo_agents.cli import experts, traces
from eapo_agents.errors import EapoError

app = typer.Typer(
    name="eapo",
    help="Train a language model to do without the experts that it asks while it trains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(traces.app, name="traces")
app.add_typer(experts.app, name="experts")

RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="Recipe file, or a name in ./recipes.")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", help="Override a recipe's key: --set train.steps=3. Repeatable."),
]
PolicyOption = Annotated[
    str | None, typer.Option("--policy", help="Trained policy's folder (its adapter).")
]
StoreOption = Annotated[
    str, typer.Option("--store", help="Trace store: a file, or an SQLAlchemy URL.")
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the run.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SandboxOption = Annotated[
    str,
    typer.Option("--sandbox", help="For a model's code: auto, bubblewrap, docker or podman."),
]
UnsafeOption = Annotated[
    bool, typer.Option("--unsafe-code", help="Run a model's code without any sandbox, this once.")
]
JudgeOption = Annotated[
    str | None, typer.Option("--judge", help="Expert of the recipe that grades (SimpleQA, HLE).")
]
DataOption = Annotated[
    list[str],
    typer.Option("--data", help="Upstream's file: --data gsm8k=test.jsonl. Repeatable."),
]
_INTERRUPTED = 130
DEFAULT_RECIPE = "cpu-smol"
DEFAULT_STORE = "runs/traces.db"


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

    one.run(_recipe(recipe, overrides, policy), question, solo=solo, as_json=as_json)


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
        _recipe(recipe, overrides, policy),
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

    commands.warm_start(_recipe(recipe, overrides, policy), out, as_json=as_json)


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
    as_json: JsonOption = False,
) -> None:
    """Runs problems x G rollouts of the consult graph into a trace store."""
    from eapo_agents.cli import commands

    resolved = _recipe(recipe, overrides, policy)
    commands.collect(resolved, store, run_id or f"collect-{resolved.name}", step, as_json=as_json)


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
    as_json: JsonOption = False,
) -> None:
    """Trains the policy: on rollouts of its own, or on logged ones. The same command resumes."""
    from eapo_agents.cli import commands

    commands.train(_recipe(recipe, overrides, policy), out, from_traces, run_id, as_json=as_json)


@app.command(name="eval")
def evaluate(
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    policy: PolicyOption = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Evaluation to compare with: an --out folder's eval.json."),
    ] = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            "--benchmarks", "-b", help="Such as aime24,humaneval; else the recipe's task."
        ),
    ] = None,
    data: DataOption = [],  # noqa: B006
    samples: Annotated[int | None, typer.Option("--samples", min=1, help="A problem.")] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", min=0.0)] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", min=0.0, max=1.0)] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", min=1)] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Problems a benchmark; always the same.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Samples in flight at once.")
    ] = None,
    assisted: Annotated[
        bool, typer.Option("--assisted", help="Also with every expert's help, and the gap.")
    ] = False,
    judge: JudgeOption = None,
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    out: OutOption = Path("runs/eval"),
    as_json: JsonOption = False,
) -> None:
    """Scores the policy without experts, on the recipe's task or on benchmarks, with intervals."""
    if benchmarks is None:
        _refuse_benchmark_options(
            {
                "--data": data,
                "--samples": samples,
                "--temperature": temperature,
                "--top-p": top_p,
                "--max-new-tokens": max_new_tokens,
                "--limit": limit,
                "--concurrency": concurrency,
                "--assisted": assisted,
                "--judge": judge,
                "--unsafe-code": unsafe_code,
            }
        )
        from eapo_agents.cli import evaluation

        evaluation.evaluate(_recipe(recipe, overrides, policy), out, baseline, as_json=as_json)
        return
    if baseline is not None:
        from eapo_agents.errors import UsageError

        raise UsageError(
            "--baseline is for the recipe's task: compare benchmark runs with `eapo compare A B`."
        )
    from eapo_agents.cli import benchmarks as bench

    options = bench.Options(
        names=[name.strip() for name in benchmarks.split(",") if name.strip()],
        data=bench.data_option(data),
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        limit=limit,
        concurrency=concurrency,
        assisted=assisted,
        judge=judge,
        sandbox=sandbox,
        unsafe=unsafe_code,
        out=out,
    )
    bench.run(_recipe(recipe, overrides, policy), options, as_json=as_json)


@app.command()
def rescore(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A benchmark run's folder.")],
    data: DataOption = [],  # noqa: B006
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    as_json: JsonOption = False,
) -> None:
    """Grades a benchmark run's saved answers again, without the policy."""
    from eapo_agents.cli import benchmarks as bench

    bench.rescore(
        run_folder,
        _recipe(recipe, overrides, None) if judge else None,
        data=bench.data_option(data),
        judge=judge,
        sandbox=sandbox,
        unsafe=unsafe_code,
        as_json=as_json,
    )


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(metavar="RUN_A")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B")],
    as_json: JsonOption = False,
) -> None:
    """Compares two benchmark runs problem by problem, B - A; refuses where settings differ."""
    from eapo_agents.cli import benchmarks as bench

    bench.compare(run_a, run_b, as_json=as_json)


@app.command(name="benchmarks")
def list_benchmarks(
    name: Annotated[str | None, typer.Argument(help="Show one: its protocol and a prompt.")] = None,
    gold: Annotated[str | None, typer.Option("--gold", help="Upstream's file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the benchmarks, or shows one as it would be asked."""
    from eapo_agents.cli import scoring

    scoring.show_benchmarks(name, gold, as_json=as_json)


@app.command()
def score(
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="Such as humaneval, gsm8k.")],
    predictions: Annotated[
        str, typer.Option("--predictions", help="Answers, in the benchmark's upstream format.")
    ],
    gold: Annotated[
        str | None,
        typer.Option("--gold", help="Upstream's file; else EAPO_DATA is searched, then the hub."),
    ] = None,
    items: Annotated[bool, typer.Option("--items", help="List each problem's score.")] = False,
    judge: JudgeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    sandbox: SandboxOption = "auto",
    unsafe_code: UnsafeOption = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Answers graded at once.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Scores answers made elsewhere, without a model: what the benchmark's own script would say."""
    from eapo_agents.cli import scoring

    scoring.score(
        benchmark,
        gold,
        predictions,
        with_items=items,
        judge=judge,
        recipe=_recipe(recipe, overrides, None) if judge else None,
        sandbox=sandbox,
        unsafe=unsafe_code,
        workers=workers,
        as_json=as_json,
    )


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

    run_demo(_recipe(recipe, overrides, None), out, as_json=as_json)


def _recipe(name: str, overrides: list[str], policy: str | None) -> Any:
    import json

    from eapo_agents.recipe import load_recipe

    extra = [f"policy.adapter={json.dumps(policy)}"] if policy else []
    return load_recipe(name, [*overrides, *extra])


def _refuse_benchmark_options(options: dict[str, Any]) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        from eapo_agents.errors import UsageError

        raise UsageError(
            f"{', '.join(given)} belong to --benchmarks, which was not given: name some, or "
            f"set the "
            "recipe's eval section (--set eval.samples=4)."
        )


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
