"""`eapo study`: arms of a recipe on several seeds, compared."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli import completion
from eapo_agents.cli.options import GraphOption, JsonOption, SetOption, with_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from eapo_agents.runs.studies import Job, Study


def study(
    recipe: Annotated[
        str,
        typer.Argument(help="Recipe: a name or a file.", autocompletion=completion.recipes),
    ],
    arms: Annotated[
        str,
        typer.Option(
            "--arms",
            help="Arms to compare: names or files, such as eapo,eapo+noisy.",
            autocompletion=completion.arms,
        ),
    ] = "self-exploration,paper,eapo,distillation",
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Number of seeds; they are 0 to n - 1.")
    ] = 3,
    overrides: SetOption = [],  # noqa: B006  # Typer's way
    graph: GraphOption = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Processes at once. Default: one for each core."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder of the study.")] = Path("runs/study"),
    as_json: JsonOption = False,
) -> None:
    """Train arms of a recipe on several seeds and compare their tool-free accuracy. The same
    command continues."""
    import json
    import os

    from eapo_agents.cli.progress import TERMINAL
    from eapo_agents.runs.studies import Study
    from eapo_agents.runs.studies import study as run

    wanted = Study(
        recipe=recipe,
        overrides=with_graph(overrides, graph),
        arms=[arm.strip() for arm in arms.split(",") if arm.strip()],
        seeds=seeds,
        folder=out,
        at_once=jobs or os.cpu_count() or 1,
    )
    with _shown(wanted):
        written = run(wanted, progress=TERMINAL)
    print(json.dumps(written.summary) if as_json else written.page.markdown())


@contextmanager
def _shown(wanted: Study) -> Iterator[None]:
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
                every.extend([*wanted.bases(), *wanted.jobs(wanted.arms)])
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

    history = read_history(job.folder) if (job.folder / STEPS).exists() else []
    if not history:
        return "starting", ""
    last, settings = history[-1], job.recipe.train
    # a training on traces goes through them `epochs` times, however many steps that are
    of = "" if settings.method == "logged" else f" of {settings.steps}"
    found = [f"solo {last['solo/accuracy']:.0%}"] if "solo/accuracy" in last else []
    found += [f"asking {last['consultation_rate']:.0%}", f"rho {last.get('rho', 0):.2f}"]
    return f"step {last['step']:.0f}{of}", " ".join(found)
