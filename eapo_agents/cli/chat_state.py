"""The state of a chat session: one thread at a time, and what commands may change."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sqlite3
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.chat_asking import ask_person
from eapo_agents.cli.output import safe_text
from eapo_agents.cli.turn_view import TurnView
from eapo_agents.cli.turns import ask_plainly, conversation, to_its_end
from eapo_agents.errors import EapoError
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
    from prompt_toolkit import PromptSession
    from rich.console import Console

    from eapo_agents.cli.chat_typing import Typing
    from eapo_agents.experts.pool import ExpertPool
    from eapo_agents.experts.review import Decision
    from graphs.agent import Agent
    from graphs.conversation import Conversation
    from graphs.events import Event, PersonAsked

WARN_FROM = 0.8
"""Share of a budget from which a warning is given."""


@dataclass(slots=True)
class Chat:
    """A session: one thread at a time, and what the commands may change."""

    recipe: Recipe
    agent: Agent
    checkpointer: AsyncSqliteSaver
    folder: Path
    store_at: str
    console: Console
    talk: Conversation
    whole: Recipe
    """The recipe with all of its experts."""
    prompt: PromptSession[str] | None = None
    """None when stdin is not a terminal."""
    typing: Typing | None = None
    """What is typed ahead, in a terminal."""
    single: bool = False
    """Whether each question gets a thread of its own."""
    answers: dict[bool, str] | None = None
    """The last question's answers: solo (True) and with experts (False)."""
    _warned: set[tuple[str, float]] = field(default_factory=set)
    """Limits of which a warning was given."""

    def open(self, thread_id: str) -> None:
        """Switch to a thread, with its own budget and ledger. A person approves calls as before."""
        self.agent.pool.open(expert_file(self.recipe, self.folder), f"chat-{thread_id}")
        review = self.talk.review
        self.talk = conversation(self.agent, self.checkpointer, thread_id)
        self.talk.review = review
        self.answers = None
        self._warned.clear()

    async def reopen(self, thread_id: str) -> None:
        """Switch to a thread, and keep the settings of this one."""
        solo, rho = self.talk.solo, self.talk.rho
        self.open(thread_id)
        await self.talk.load()
        self.talk.solo, self.talk.rho = solo, rho

    async def change(self, recipe: Recipe, *, pool: ExpertPool | None = None) -> None:
        """Continue with a changed recipe, and with other experts.

        Raises:
            UsageError: the policy cannot be run like that; then nothing is changed.
        """
        agent = replace(self.agent, recipe=recipe, pool=pool or self.agent.pool)
        conversation(agent, self.checkpointer, self.talk.thread_id)  # refuses what does not fit
        if pool is not None:
            limits, old = pool.budget, self.agent.pool
            for name in ("calls", "tokens", "usd"):
                setattr(limits, name, getattr(old.budget, name))
        self.recipe, self.agent = recipe, agent
        await self.reopen(self.talk.thread_id)

    async def ask(self, question: str) -> None:
        """Ask a question in this thread, or in a new one with the same settings."""
        if self.single and await self.talk.messages():
            await self.reopen(secrets.token_hex(4))
        await self.turn(self.talk.ask(question))

    def warn_of_budget(self) -> None:
        """Say once of each limit that most of it is spent."""
        for what, spent, most in self.agent.pool.budget.lines():
            if most and spent >= WARN_FROM * most and (what, most) not in self._warned:
                self._warned.add((what, most))
                share = f"{spent / most:.0%} of the budget is spent: {spent:g} of {most:g} {what}."
                self.say(f"{share} /budget sets another limit.", style="yellow")

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
            with self.typing.kept() if self.typing else contextlib.nullcontext():
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
            self.warn_of_budget()
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

    async def _ask_person(self, asked: PersonAsked, console: Console) -> str | list[Decision]:
        if self.prompt is None:
            return await ask_plainly(asked, console)
        return await ask_person(asked, self._read, lambda text: self.say(text, style="bold"))

    async def _read(self, prompt: str, given: str) -> str:
        """Read a line of a person's reply. What was typed ahead is for the next question."""
        assert self.prompt is not None
        if self.typing is not None:
            self.typing.set_aside()
        try:
            return await self.prompt.prompt_async(
                prompt, default=given, bottom_toolbar=None, handle_sigint=False
            )
        except (KeyboardInterrupt, EOFError):
            raise asyncio.CancelledError from None  # stops the turn, not the program

    async def answer(self, waiting: Sequence[PersonAsked]) -> AsyncIterator[Event]:
        """Ask people again what they were asked before the program ended, and continue."""
        replies = {one.id: await self._ask_person(one, self.console) for one in waiting}
        async for event in self.talk.reply(replies):
            yield event


def brief(answer: str) -> str:
    said = " ".join(answer.split())
    return said if len(said) <= 200 else f"{said[:200]} …"
