"""Lists of conversations, and what a search over them and over the traces finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    from graphs.threads import Thread

MOST_HITS = 50
Say = Callable[[str], None]


async def print_threads(saver: AsyncSqliteSaver, say: Say) -> None:
    """Print the conversations, the latest first: id, date, questions, the first question."""
    from graphs.threads import list_threads

    found = await list_threads(saver)
    for thread in found:
        num = thread.num_questions
        say(f"{_named(thread)}  {num:2} question{'s' if num != 1 else ' '}  {_flat(thread.title)}")
    if not found:
        say("There are no threads yet.")


async def print_search(saver: AsyncSqliteSaver, store_at: str, text: str, say: Say) -> None:
    """Print where a text stands in conversations and traces, whatever its case."""
    from eapo_agents.errors import UsageError
    from graphs.threads import search_threads

    if not text.strip():
        raise UsageError("A search needs a text, such as /search triangle.")
    hits = await search_threads(saver, text)
    for hit in hits[:MOST_HITS]:
        say(f"thread {_named(hit.thread)}  {hit.who}: {hit.snippet}")
    if len(hits) > MOST_HITS:
        say(f"{len(hits) - MOST_HITS} more messages of threads hold it.")
    num_traces = _search_traces(store_at, text, say)
    if not hits and not num_traces:
        say(f"Nothing in threads or in the traces of '{store_at}' holds '{text}'.")


def _search_traces(store_at: str, text: str, say: Say) -> int:
    from eapo_agents.store.browsing import StoreBrowser

    if "://" not in store_at and not Path(store_at).exists():
        return 0  # nothing was ever rated or collected
    with contextlib.closing(StoreBrowser.look_into(store_at)) as store:
        found = store.search(text, limit=MOST_HITS)
    for hit in found.hits:
        said = _flat("".join(hit.snippet))
        say(f"trace {hit.brief.id}  {hit.brief.run_id}  {hit.where}: {said}")
    if not found.whole:
        say(f"Searched: the latest {found.searched} trajectories. `eapo traces search` has more.")
    return len(found.hits)


def _named(thread: Thread) -> str:
    return f"{thread.id}  {thread.changed_at.astimezone():%Y-%m-%d %H:%M}"


def _flat(text: str) -> str:
    said = " ".join(text.split())
    return said if len(said) <= 100 else f"{said[:99]}…"
