"""The `eapo` command: one file a command, every heavy import inside the command that needs it."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from types import TracebackType
from typing import Annotated, TextIO

import typer

import eapo_agents
from eapo_agents.cli import (
    benchmarks,
    chat,
    collect,
    compare,
    demo,
    doctor,
    env,
    eval,
    experts,
    export,
    help,
    init,
    models,
    recipe,
    report,
    rescore,
    run,
    score,
    serve,
    study,
    traces,
    train,
    view,
    warm_start,
    watch,
)
from eapo_agents.errors import EapoError, RewardWarning, innermost, is_full_disk
from eapo_agents.foreign import refuse_foreign_packages
from eapo_agents.interrupts import end_on_sigterm

app = typer.Typer(
    name="eapo",
    help="Train a language model with experts as tools, so that it works without them afterwards.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for command in (
    init.init,
    doctor.doctor,
    run.run,
    chat.chat,
    warm_start.warm_start,
    collect.collect,
    train.train,
    demo.demo,
    serve.serve,
    export.export,
    rescore.rescore,
    compare.compare,
    score.score,
    study.study,
    report.report,
    watch.watch,
    view.view,
):
    app.command()(command)
app.command(name="eval")(eval.evaluate)
app.command(name="benchmarks")(benchmarks.list_benchmarks)
app.add_typer(traces.app, name="traces")
app.add_typer(experts.app, name="experts")
app.add_typer(models.app, name="models")
app.add_typer(recipe.app, name="recipe")
app.command()(env.env)
app.command(name="help")(help.help_)

_INTERRUPTED = 130
_OF_ALL = ("--quiet", "--events")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"eapo {eapo_agents.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Tell no progress, only results and warnings.")
    ] = False,
    events: Annotated[
        bool, typer.Option("--events", help="Tell progress as JSON objects on stderr, a line each.")
    ] = False,
) -> None:
    refuse_foreign_packages()
    from eapo_agents.cli.progress import TERMINAL

    TERMINAL.quiet, TERMINAL.events = quiet, events


def _of_all_first(words: list[str]) -> list[str]:
    """Return a command line with the options of all commands in front, where Typer looks for them:
    people write `eapo train --quiet` too."""
    place = words.index("--") if "--" in words else len(words)
    own, rest = words[:place], words[place:]
    of_all = [word for word in own if word in _OF_ALL]
    return [*of_all, *(word for word in own if word not in _OF_ALL), *rest]


def _share_cores() -> None:
    """Let torch's threads sleep soon after each operation, unless the user says how they wait.

    By default libgomp's spin for milliseconds: where another process wants the cores too, each
    operation then waits for a thread that waits for a core that is spun on. Its library reads this
    when torch is loaded, which is later. `benchmarks/busy_cores.py` measures it.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def main() -> None:
    """Run the command. Print each EapoError as one line on stderr and exit with its status."""
    end_on_sigterm()
    _share_cores()
    warnings.showwarning = _show_warning
    # The user's modules (graphs, tasks, rewards, tools) are in the working folder. It comes last:
    # a folder there that is called `graphs` or `datasets` must not hide an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        if (
            app(_of_all_first(sys.argv[1:]), standalone_mode=False) == _INTERRUPTED
        ):  # what Typer returns after Ctrl-C
            raise KeyboardInterrupt
    except EapoError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Interrupted. The same command continues where this one stopped.", _INTERRUPTED)
    except typer.Abort:
        _fail("Interrupted.", _INTERRUPTED)
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):
            error.show() if hasattr(error, "show") else print(error, file=sys.stderr)
            sys.exit(getattr(error, "exit_code", 2))
        cause = innermost(error)
        if isinstance(cause, EapoError):
            _fail(str(cause), cause.exit_code)
        if is_full_disk(cause):
            file = getattr(cause, "filename", None)
            _fail(
                f"The disk is full{f' ({file})' if file else ''}: make room. The same command "
                "continues where this one stopped.",
                EapoError.exit_code,
            )
        sys.excepthook = _show_bug  # only now: Typer sets one of its own
        raise


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print ours as a line, and others as Python does."""
    from eapo_agents.cli.output import safe_text
    from eapo_agents.secrets import redact

    said = redact(warnings.formatwarning(message, category, filename, lineno))
    ours = issubclass(category, RewardWarning)
    told = f"eapo: {safe_text(str(message))}" if ours else said.rstrip()
    print(told, file=file or sys.stderr)


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what Python prints of an error that nobody caught, without keys."""
    from eapo_agents.secrets import redact

    print(redact("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _fail(message: str, exit_code: int) -> None:
    from eapo_agents.cli.output import safe_text

    print(f"eapo: {safe_text(message)}", file=sys.stderr)
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
