"""The state of a chat session: one thread at a time, and what commands may change."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.turn_view import TurnView
from eapo_agents.cli.turns import ask_plainly, conversation, to_its_end
from eapo_agents.errors import EapoError
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from prompt_toolkit import PromptSession
    from rich.console import Console

    from graphs.agent import Agent
    from graphs.conversation import Conversation
    from graphs.events import Event, PersonAsked


@dataclass(slots=True)
class Chat:
    """A session: one thread at a time, and what the commands may change."""

    recipe: Recipe
    agent: Agent
    checkpointer: BaseCheckpointSaver[str]
    folder: Path
    store_at: str
    console: Console
    talk: Conversation
    prompt: PromptSession[str] | None = None
    """None when stdin is not a terminal."""
    single: bool = False
    """Whether each question gets a thread of its own."""
    answers: dict[bool, str] | None = None
    """The last question's answers: solo (True) and with experts (False)."""

    def open(self, thread_id: str) -> None:
        """Switch to a thread, with its own budget and ledger."""
        self.agent.pool.open(expert_file(self.recipe, self.folder), f"chat-{thread_id}")
        self.talk = conversation(self.agent, self.checkpointer, thread_id)
        self.answers = None

    async def ask(self, question: str) -> None:
        """Ask a question in this thread, or in a new one with the same settings."""
        if self.single and await self.talk.messages():
            solo, rho = self.talk.solo, self.talk.rho
            self.open(secrets.token_hex(4))
            self.talk.solo, self.talk.rho = solo, rho
        await self.turn(self.talk.ask(question))

    async def turn(self, events: AsyncIterator[Event], *, compare: bool = False) -> None:
        """Run one turn to its end. Ctrl-C stops the turn, not the program."""
        from graphs.events import Ended

        kept: list[Event] = []
        view = TurnView(self.console)
        task = asyncio.ensure_future(
            to_its_end(self.talk, events, self.console, view, kept, self._ask_person)
        )
        loop = asyncio.get_running_loop()
        with contextlib.suppress(NotImplementedError):  # no signals on Windows' loops
            loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            self.say("Stopped. /again asks the question again.")
            return
        except EapoError as error:
            self.say(str(error), style="red")
            return
        except sqlite3.Error as error:
            self.say(f"The conversation cannot be saved: {error}. Is the disk full?", style="red")
            return
        finally:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(signal.SIGINT)
        ended = next((event for event in kept if isinstance(event, Ended)), None)
        if ended is None:
            return
        if self.console.stderr:
            print(safe_text(ended.answer), flush=True)
        self.answers = {**(self.answers or {} if compare else {}), self.talk.solo: ended.answer}
        if len(self.answers) == 2:
            self.say(f"solo          {brief(self.answers[True])}")
            self.say(f"with experts  {brief(self.answers[False])}")

    def say(self, text: str, style: str = "dim") -> None:
        """Print a line from the program itself."""
        piped = not self.console.is_terminal
        self.console.print(Text(safe_text(text), style=style), soft_wrap=piped)

    async def _ask_person(self, asked: PersonAsked, console: Console) -> str:
        if self.prompt is None:
            return await ask_plainly(asked, console)
        self.say(f"? {asked.expert} is asked: {asked.query}", style="bold")
        try:
            return await self.prompt.prompt_async("reply> ", bottom_toolbar=None)
        except (KeyboardInterrupt, EOFError):
            raise asyncio.CancelledError from None  # stops the turn, not the program

    async def answer(self, waiting: Sequence[PersonAsked]) -> AsyncIterator[Event]:
        """Ask people again what they were asked before the program ended, and continue."""
        replies = {one.id: await self._ask_person(one, self.console) for one in waiting}
        async for event in self.talk.reply(replies):
            yield event


async def threads(saver: BaseCheckpointSaver[str]) -> dict[str, str]:
    """Return thread ids, the latest first, with the last question of each."""
    known: dict[str, str] = {}
    async for saved in saver.alist(None):
        thread_id = saved.config["configurable"]["thread_id"]
        if thread_id not in known:
            said = saved.checkpoint["channel_values"].get("messages", [])
            questions = [message.text for message in said if message.type == "human"]
            known[thread_id] = str(questions[-1]) if questions else ""
    return known


def brief(answer: str) -> str:
    said = " ".join(answer.split())
    return said if len(said) <= 200 else f"{said[:200]} …"
