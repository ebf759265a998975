"""`eapo study`: arms of a recipe on several seeds, compared."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import GraphOption, JsonOption, SetOption, with_graph
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from eapo_agents.runs.studies import Job, Jobs
    from eapo_agents.runs.study_reports import Report

ARMS = "self-exploration,paper,eapo,distillation"
SEEDS = 3


def study(
    recipe: Annotated[
        str,
        typer.Argument(
            help="Recipe: a name or a file; or a table's file.", autocompletion=completion.recipes
        ),
    ],
    arms: Annotated[
        str | None,
        typer.Option(
            "--arms",
            help="Arms to compare: names or files, such as eapo,eapo+noisy.",
            show_default=ARMS,
            autocompletion=completion.arms,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            help="Number of seeds; they are 0 to n - 1.",
            show_default=f"{SEEDS}, or the table's",
        ),
    ] = None,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    graph: GraphOption = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Processes at once. Default: one for each core."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the study.")] = Path("runs/study"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, say what it will take, and exit.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train arms of a recipe on several seeds, or the tasks, kinds of help and methods of a table,
    and compare their tool-free accuracy. The same command continues."""
    import json
    import os

    from eapo_agents.runs.table_file import is_table

    at_once = jobs or os.cpu_count() or 1
    settings = with_graph(overrides, graph)
    if is_table(recipe):
        if arms is not None:
            raise UsageError(f"'{recipe}' is a table, which names its methods: take --arms out.")
        written = _run_table(recipe, settings, seeds, out, at_once, dry_run)
    else:
        named = [arm.strip() for arm in (arms or ARMS).split(",") if arm.strip()]
        written = _run_arms(recipe, settings, named, seeds or SEEDS, out, at_once, dry_run)
    if written is not None:
        print(json.dumps(written.summary) if as_json else written.page.markdown())


def _run_arms(
    recipe: str,
    overrides: Sequence[str],
    arms: Sequence[str],
    seeds: int,
    out: Path,
    at_once: int,
    dry_run: bool,
) -> Report | None:
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.studies import Study, check
    from eapo_agents.runs.studies import study as run
    from eapo_agents.runs.table_forecast import forecast

    wanted = Study(
        recipe=recipe, overrides=overrides, arms=arms, seeds=seeds, folder=out, at_once=at_once
    )
    if dry_run:
        check(wanted)
        print(forecast(wanted).told())
        return None
    with _shown(wanted):
        return run(wanted, progress=TERMINAL)


def _run_table(
    file: str,
    overrides: Sequence[str],
    seeds: int | None,
    out: Path,
    at_once: int,
    dry_run: bool,
) -> Report | None:
    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.table_file import read_table
    from eapo_agents.runs.table_forecast import forecast
    from eapo_agents.runs.tables import TableStudy, check, table_study

    table = read_table(file)
    wanted = TableStudy(
        table=table,
        overrides=overrides,
        seeds=seeds or table.seeds,
        folder=out,
        at_once=at_once,
    )
    if dry_run:
        check(wanted, TERMINAL)
        print(forecast(wanted).told())
        return None
    with _shown(wanted):
        return table_study(wanted, progress=TERMINAL)


@contextmanager
def _shown(wanted: Jobs) -> Iterator[None]:
    """Show the jobs that run: a table in a terminal, else a line every few seconds."""
    from rich.live import Live

    from eapo_agents.cli.progress import TERMINAL, console

    if console.is_terminal and not TERMINAL.quiet and not TERMINAL.events:
        with Live(console=console, refresh_per_second=1, transient=True) as live:
            wanted.on_look = lambda running, waiting: live.update(_table(running, waiting))
            yield
        return
    every: list[Job] = []
    with TERMINAL.bar("Study (jobs)", None) as bar:

        def tell(running: Sequence[Job], num_waiting: int) -> None:
            if not every:  # not before: the study says what is wrong with its arms
                every.extend([*wanted.bases(), *wanted.runs()])
            states = [f"{job.name}: {' '.join(_state(job)).strip()}" for job in running]
            bar.at(sum(job.done for job in every), len(every), "; ".join(states))

        wanted.on_look = tell
        yield


def _table(running: Sequence[Job], num_waiting: int) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    for job in running:
        table.add_row(job.name, *_state(job))
    table.add_row("waiting", str(num_waiting), "")
    return table


def _state(job: Job) -> tuple[str, str]:
    from eapo_agents.runs.folder import STEPS, read_history
    from eapo_agents.runs.job_progress import doing

    if text := doing(job.folder):
        return text, ""
    history = read_history(job.folder) if (job.folder / STEPS).exists() else []
    if not history:
        return "starting", ""
    last, settings = history[-1], job.recipe.train
    # a training on traces goes through them `epochs` times, however many steps that are
    of = "" if settings.method == "logged" else f" of {settings.steps}"
    found = [f"solo {last['solo/accuracy']:.0%}"] if "solo/accuracy" in last else []
    found += [f"asking {last['consultation_rate']:.0%}", f"rho {last.get('rho', 0):.2f}"]
    return f"step {last['step']:.0f}{of}", " ".join(found)
