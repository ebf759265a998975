"""Conversations that are kept: their list, a search over them, a copy of one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple

from graphs.turns import messages_in

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

_LATEST_FIRST = """
SELECT thread_id FROM checkpoints WHERE checkpoint_ns = ''
GROUP BY thread_id ORDER BY max(checkpoint_id) DESC
"""
_TITLES = "eapo_titles"
"""Table of the titles that people gave; made with the first of them."""
_SNIPPET = 60
"""Characters shown before and behind what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A conversation in a list."""

    id: str
    title: str
    """What a person called it, else its first question; empty before one is asked."""
    is_named: bool = False
    """Whether a person named it."""
    last_question: str
    num_questions: int
    changed_at: datetime
    """When something was said last, with its time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadHit:
    """A message in which a text was found."""

    thread: Thread
    who: str
    snippet: str


async def thread_ids(saver: AsyncSqliteSaver) -> list[str]:
    """Return the threads in a file, the latest first. LangGraph's own listing reads every
    checkpoint of every thread."""
    async with saver.lock, saver.conn.execute(_LATEST_FIRST) as rows:
        return [str(row[0]) async for row in rows]


async def list_threads(saver: AsyncSqliteSaver) -> list[Thread]:
    """Return the conversations, the latest first."""
    return [thread async for thread, _ in _each(saver)]


async def search_threads(saver: AsyncSqliteSaver, text: str) -> list[ThreadHit]:
    """Return the messages and given titles that hold a text, whatever its case, those of the latest
    thread first."""
    wanted = text.casefold()
    hits = []
    async for thread, messages in _each(saver):
        if thread.is_named and wanted in thread.title.casefold():
            hits.append(ThreadHit(thread=thread, who="title", snippet=thread.title))
        for message in messages:
            said = " ".join(str(message.text).split())
            at = said.casefold().find(wanted)
            if at >= 0:
                first, last = max(0, at - _SNIPPET), at + len(text) + _SNIPPET
                cut = f"{'…' * (first > 0)}{said[first:last]}{'…' * (last < len(said))}"
                hits.append(ThreadHit(thread=thread, who=who_says(message), snippet=cut))
    return hits


async def set_title(saver: AsyncSqliteSaver, thread_id: str, title: str) -> None:
    """Name a conversation; an empty title takes the name away."""
    made = f"CREATE TABLE IF NOT EXISTS {_TITLES} (thread_id TEXT PRIMARY KEY, title TEXT NOT NULL)"
    async with saver.lock:
        await saver.conn.execute(made)
        if title:
            row = f"INSERT OR REPLACE INTO {_TITLES} VALUES (?, ?)"
            await saver.conn.execute(row, (thread_id, title))
        else:
            await saver.conn.execute(f"DELETE FROM {_TITLES} WHERE thread_id = ?", (thread_id,))
        await saver.conn.commit()


async def titles(saver: AsyncSqliteSaver) -> dict[str, str]:
    """Return thread id -> the title that a person gave it."""
    known = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    async with saver.lock:
        async with saver.conn.execute(known, (_TITLES,)) as rows:
            if await rows.fetchone() is None:
                return {}
        async with saver.conn.execute(f"SELECT thread_id, title FROM {_TITLES}") as rows:
            return {str(row[0]): str(row[1]) async for row in rows}


async def copy_thread(saver: BaseCheckpointSaver[str], thread_id: str, new_id: str) -> None:
    """Copy a conversation with its whole history, so that both can continue."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    kept = [saved async for saved in saver.alist(config)]
    for saved in reversed(kept):  # the oldest first
        copied = await saver.aput(
            _place(new_id, saved.parent_config, saved.config),
            saved.checkpoint,
            saved.metadata,
            saved.checkpoint["channel_versions"],
        )
        for task, writes in _writes_by_task(saved).items():
            await saver.aput_writes(copied, writes, task)


def who_says(message: BaseMessage) -> str:
    """Return whose message it is, for people: an expert's by its name."""
    speakers = {"human": "you", "ai": "policy", "tool": "expert", "system": "system"}
    named = message.name if message.type == "tool" else None
    return named or speakers.get(message.type, message.type)


async def _each(saver: AsyncSqliteSaver) -> AsyncIterator[tuple[Thread, Sequence[BaseMessage]]]:
    named = await titles(saver)
    for name in await thread_ids(saver):
        saved = await saver.aget_tuple({"configurable": {"thread_id": name, "checkpoint_ns": ""}})
        if saved is None:
            continue
        messages = messages_in(saved.checkpoint["channel_values"])
        asked = [str(message.text) for message in messages if message.type == "human"]
        yield (
            Thread(
                id=name,
                title=named.get(name) or (asked[0] if asked else ""),
                is_named=name in named,
                last_question=asked[-1] if asked else "",
                num_questions=len(asked),
                changed_at=datetime.fromisoformat(saved.checkpoint["ts"]),
            ),
            messages,
        )


def _place(thread_id: str, parent: RunnableConfig | None, own: RunnableConfig) -> RunnableConfig:
    """Return where a copied checkpoint goes: in the new thread, after the same parent."""
    where: dict[str, Any] = {
        "thread_id": thread_id,
        "checkpoint_ns": own["configurable"].get("checkpoint_ns", ""),
    }
    if parent is not None:
        where["checkpoint_id"] = parent["configurable"]["checkpoint_id"]
    return cast("RunnableConfig", {"configurable": where})


def _writes_by_task(saved: CheckpointTuple) -> dict[str, list[tuple[str, Any]]]:
    found: dict[str, list[tuple[str, Any]]] = {}
    for task, channel, value in saved.pending_writes or ():
        found.setdefault(task, []).append((channel, value))
    return found
