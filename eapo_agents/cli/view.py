"""`eapo view`: runs, rollouts, tokens and samples in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eapo_agents.cli.options import JsonOption

if TYPE_CHECKING:
    from eapo_agents.runs.view.serving import Served


def view(
    folders: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FOLDER]...",
            help="Runs, studies, evaluations, trace stores, or folders of them (default: runs).",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port (default: a free one).")
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write one HTML file that needs no server, and exit."),
    ] = None,
    rollouts: Annotated[
        int, typer.Option("--rollouts", min=0, max=1000, help="Rollouts in the exported file.")
    ] = 20,
    force: Annotated[
        bool, typer.Option("--force", help="Let --export replace a file that is not its own.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show runs, rollouts, tokens and samples in the browser, read-only, until Ctrl-C."""
    from eapo_agents.cli.output import show

    roots = folders or ["runs"]
    if export is not None:
        from eapo_agents.runs.view.exporting import export_view

        written = export_view(roots, export, num_rollouts=rollouts, force=force)
        show({"file": str(written.file), "rollouts": written.rollouts}, as_json=as_json)
        return
    from eapo_agents.runs.view.serving import serve_view

    def tell(served: Served) -> None:
        _tell(served, as_json)
        if open_browser:
            _open(served.url)

    serve_view(roots, port=port, on_ready=tell)


def _tell(served: Served, as_json: bool) -> None:
    import json

    facts = {"url": served.url, "places": served.num_places}
    print(json.dumps(facts) if as_json else served.url, flush=True)


def _open(url: str) -> None:
    """Open a browser where there is a screen. Without one, Python would start a browser of text in
    this terminal."""
    import os
    import sys
    import webbrowser

    on_screen = sys.platform in ("darwin", "win32") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if on_screen:
        webbrowser.open(url)
