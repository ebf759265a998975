"""Writes one HTML file that shows runs without a server: results, curves, some rollouts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import eapo_agents
from eapo_agents.errors import EapoError, UsageError
from eapo_agents.files import write_atomically
from eapo_agents.runs.view import rollout_pages, run_pages
from eapo_agents.runs.view.finding import Kind, Place
from eapo_agents.runs.view.pages import asset, render
from eapo_agents.runs.view.site import Site, Values

if TYPE_CHECKING:
    from eapo_agents.store.browsing import StoreBrowser

MARK = "<!doctype html>\n<!-- eapo view"
"""How each exported file begins: another file is not replaced."""
_MOST_PLACES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What was written."""

    file: Path
    rollouts: int


def export_view(
    roots: Sequence[str], file: Path, *, num_rollouts: int = 20, force: bool = False
) -> Exported:
    """Write what folders hold into one file that needs nothing else.

    Args:
        num_rollouts: how many rollouts it shows with their tokens, the first of each run.
        force: replace a file that this did not write.

    Raises:
        UsageError: nothing is there to show, or the file is somebody else's.
    """
    _refuse_other_file(file, force)
    site = Site(roots)
    places = list(site.places().values())
    if not places:
        raise UsageError(
            f"There is no run, evaluation or trace store below {', '.join(roots)}: give another "
            "folder."
        )
    shown = places[:_MOST_PLACES]
    with_store = [at for at in shown if site.store_if_any(at) is not None]
    each = -(-num_rollouts // len(with_store)) if with_store else 0
    left = num_rollouts
    parts: list[Values] = []
    for at in shown:
        found = _rollouts(site, at, min(each, left)) if at in with_store else []
        left -= len(found)
        parts.append(_part(site, at) | {"rollouts": found})
    css, script = asset("view.css"), asset("view.js")
    values = {
        "parts_of": parts,
        "lines": [site.line(at) for at in places],
        "left_out": len(places) - len(shown),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": eapo_agents.__version__,
        "policy": f"default-src 'none'; img-src data:; style-src '{_digest(css)}'; "
        f"script-src '{_digest(script)}'",
        **_own(css, script),
    }
    page = render("export.html", values, linked=False)
    try:
        write_atomically(file, page)
    except OSError as error:
        raise UsageError(
            f"The file '{file}' cannot be written ({error.strerror}): give another --export."
        ) from error
    return Exported(file=file, rollouts=num_rollouts - left)


def _own(css: str, script: str) -> Values:
    """Return our own style and script, which are put in as they are."""
    from markupsafe import Markup

    return {"css": Markup(css), "script": Markup(script)}  # files of this package


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _refuse_other_file(file: Path, force: bool) -> None:
    if file.is_dir():
        raise UsageError(f"'{file}' is a folder: give --export the name of a file.")
    if force or not file.exists():
        return
    try:
        begin = file.read_bytes()[: len(MARK)]
    except OSError as error:
        raise UsageError(f"'{file}' cannot be read ({error.strerror}): give another.") from error
    if begin != MARK.encode():
        raise UsageError(
            f"'{file}' was not written by `eapo view`, and is not replaced: give another --export, "
            "or --force."
        )


def _part(site: Site, at: Place) -> Values:
    values: Values = {"place": at, "line": site.line(at), "kind": at.kind.value}
    if at.kind is Kind.TRAINING:
        return values | run_pages.training(site, at, [])
    if at.kind is Kind.EVALUATION:
        return values | run_pages.evaluation(site, at)
    return values | run_pages.place(site, at)


def _rollouts(site: Site, at: Place, number: int) -> list[Values]:
    """Return the first rollouts of a place's run, with their conversations and tokens."""
    store = site.store(at)
    run_id = _run_of(store)
    if run_id is None or number < 1:
        return []
    found = []
    for trajectory_id in store.first_ids(run_id, number):
        try:
            values = rollout_pages.rollout(site, at.key, trajectory_id)
            rows = rollout_pages.tokens(site, at.key, trajectory_id, colour="mask")["rows"]
        except EapoError:
            continue  # a trace that this version cannot show; the view says why
        found.append(values | {"rows": rows})
    return found


def _run_of(store: StoreBrowser) -> str | None:
    infos = [info for info in store.runs() if info.num_trajectories]
    return run_pages.step_run(infos) or (infos[0].run_id if infos else None)
