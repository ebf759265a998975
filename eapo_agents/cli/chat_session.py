"""A session with the agent, in a terminal or a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli.chat_commands import COMMANDS, run_command
from eapo_agents.cli.chat_files import with_files
from eapo_agents.cli.chat_lists import print_search, print_threads
from eapo_agents.cli.chat_settings import names_in, with_experts
from eapo_agents.cli.chat_state import Chat
from eapo_agents.cli.chat_typing import Typing
from eapo_agents.cli.output import safe_text
from eapo_agents.cli.progress import TERMINAL
from eapo_agents.cli.turn_view import money, screen
from eapo_agents.cli.turns import conversation
from eapo_agents.errors import EapoError, StoreError, UsageError
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import store_folder
from eapo_agents.runs.loading import load_agent

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from prompt_toolkit import PromptSession


THREADS = "threads.db"
HISTORY = ".chat_history"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The options of `eapo chat`."""

    thread: str | None
    latest: bool
    list_threads: bool
    search: str | None
    experts: str | None
    ask: bool
    single: bool
    """Begin a new thread for each question."""
    forget: bool
    """Keep nothing once the session has ended."""
    store_at: str


def chat(recipe: Recipe, wishes: Wishes) -> None:
    """Run a session in the terminal, or read one question a line from a pipe.

    Raises:
        UsageError: an option does not fit.
    """
    if wishes.ask and not sys.stdin.isatty():
        raise UsageError("--ask waits for a person at the keyboard: run it in a terminal.")
    chosen = recipe
    if wishes.experts is not None:
        chosen = with_experts(recipe, names_in(wishes.experts))
    if not wishes.forget:
        asyncio.run(_chat(recipe, chosen, wishes, store_folder(wishes.store_at)))
        return
    _refuse_to_forget(recipe, wishes)
    with tempfile.TemporaryDirectory(prefix="eapo-chat-") as folder:
        asyncio.run(_chat(recipe, chosen, wishes, Path(folder)))


def _refuse_to_forget(recipe: Recipe, wishes: Wishes) -> None:
    """Raise UsageError where something of the session would be kept, or was."""
    if wishes.thread or wishes.latest or wishes.list_threads or wishes.search is not None:
        raise UsageError(
            "--forget keeps nothing and begins a new thread: leave out --thread, --continue, "
            "--threads and --search."
        )
    if recipe.consult.expert_store is not None:
        raise UsageError(
            "--forget keeps nothing, and consult.expert_store keeps every call in "
            f"'{recipe.consult.expert_store}': add --set consult.expert_store=null."
        )


async def _chat(whole: Recipe, recipe: Recipe, wishes: Wishes, folder: Path) -> None:
    async with _open_threads(folder / THREADS) as saver:
        if wishes.list_threads:
            await print_threads(saver, _print)
            return
        if wishes.search is not None:
            await print_search(saver, wishes.store_at, wishes.search, _print)
            return
        thread = await _chosen_thread(saver, wishes, folder)
        thread_id = thread or secrets.token_hex(4)
        agent = load_agent(recipe, TERMINAL)
        prompt = _prompt_session(folder) if sys.stdin.isatty() else None
        session = Chat(
            recipe=recipe,
            whole=whole,
            agent=agent,
            checkpointer=saver,
            folder=folder,
            store_at=wishes.store_at,
            console=screen(),
            talk=conversation(agent, saver, thread_id),
            prompt=prompt,
            typing=Typing(prompt.app.input) if prompt is not None else None,
            single=wishes.single,
        )
        session.talk.review = wishes.ask
        session.open(thread_id)
        await session.talk.load()
        await _greet(session, resumed=thread is not None)
        await _loop(session)
        if not wishes.forget and await session.talk.messages():
            session.say(f"Continue with `eapo chat --thread {session.talk.thread_id}`.")


async def _chosen_thread(saver: AsyncSqliteSaver, wishes: Wishes, folder: Path) -> str | None:
    """Return the thread to continue; None for a new one."""
    from graphs.threads import thread_ids

    known = await thread_ids(saver)
    if wishes.thread is not None and wishes.thread not in known:
        raise UsageError(
            f"There is no thread '{wishes.thread}' in '{folder / THREADS}': `eapo chat --threads` "
            "lists them; without --thread a new one begins."
        )
    if wishes.latest and not known:
        raise UsageError("There is no thread to continue yet: start one with `eapo chat`.")
    return wishes.thread or (known[0] if wishes.latest else None)


@contextlib.asynccontextmanager
async def _open_threads(file: Path) -> AsyncIterator[AsyncSqliteSaver]:
    """Open the kept conversations.

    Raises:
        StoreError: the file cannot be made or read.
    """
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with contextlib.AsyncExitStack() as stack:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(file)))
            await saver.setup()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The conversations in '{file}' cannot be used ({error}): move the file away, or "
                "name another folder with --store."
            ) from error
        yield saver


def _print(text: str) -> None:
    print(safe_text(text))


async def _greet(session: Chat, *, resumed: bool) -> None:
    version = session.agent.engine.policy_version
    names = ", ".join(tool.name for tool in session.agent.pool.tools) or "none"
    session.say(
        f"eapo chat · {version.model}, step {version.step} · experts: {names} · thread "
        f"{session.talk.thread_id} · {'a new one for each question · ' * session.single}/help"
    )
    if not resumed:
        return
    await run_command(session, "/history")
    waiting = await session.talk.waiting()
    if waiting:
        session.say("A person was asked and has not replied yet.")
        await session.turn(session.answer(waiting))
    elif (await session.talk.snapshot()).next:
        session.say("The last turn was cut off: it continues now.")
        await session.turn(session.talk.resume())


async def _loop(session: Chat) -> None:
    async for line in _lines(session):
        said = line.strip()
        if not said:
            continue
        if said in ("/quit", "/exit"):
            return
        try:
            if said.startswith("/"):
                await run_command(session, said)
            else:
                await _ask(session, said)
        except EapoError as error:
            session.say(str(error), style="red")


async def _ask(session: Chat, said: str) -> None:
    """Ask a question. Files are read for a person at the keyboard only: a piped text may be
    anybody's."""
    notes: list[str] = []
    if session.prompt is not None:
        said, notes = with_files(said)
    for note in notes:
        session.say(f"in the question: {note}")
    await session.ask(said)


async def _lines(session: Chat) -> AsyncIterator[str]:
    """Yield what the user types or pipes in."""
    if session.prompt is None:
        for line in sys.stdin:
            yield line
        return
    while True:
        if session.typing is not None:
            session.typing.give()
        try:
            yield await session.prompt.prompt_async(
                "> ", bottom_toolbar=lambda: _status(session), rprompt=""
            )
        except KeyboardInterrupt:
            session.say("Ctrl-D or /quit ends the session.")
        except EOFError:
            return


def _status(session: Chat) -> str:
    talk = session.talk
    budget = session.agent.pool.budget
    rho = "" if talk.solo else f" · rho {1.0 if talk.rho is None else talk.rho:g}"
    spent = f"{budget.spent_calls} call{'' if budget.spent_calls == 1 else 's'}"
    spent += f", {money(budget.spent_usd)}" if budget.spent_usd else ""
    limits = [f"{limit:g} {what}" for what, _, limit in budget.lines() if limit is not None]
    most = f" of {', '.join(limits)}" if limits else ""
    mode = "solo" if talk.solo else "with experts"
    mode += ", each call approved by you" * (talk.review and not talk.solo)
    return f" {mode}{rho} · spent {spent}{most} · thread {talk.thread_id} "


def _prompt_session(folder: Path) -> PromptSession[str]:
    """Return a prompt: Enter sends, Alt-Enter breaks the line, Tab completes commands."""
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return PromptSession(
        history=FileHistory(str(folder / HISTORY)),
        completer=WordCompleter(sorted(COMMANDS), sentence=True),
        complete_while_typing=False,
        key_bindings=keys,
        enable_open_in_editor=True,
        enable_suspend=True,
    )
