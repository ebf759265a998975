"""A turn of the agent, from its question to its end: what `eapo chat` and `eapo run` share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.chat_asking import ask_person
from eapo_agents.cli.output import safe_text
from eapo_agents.cli.turn_view import TurnView
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from rich.console import Console

    from eapo_agents.experts.review import Decision
    from graphs.agent import Agent
    from graphs.conversation import Conversation
    from graphs.events import Event, PersonAsked


def conversation(
    agent: Agent, checkpointer: BaseCheckpointSaver[str], thread_id: str
) -> Conversation:
    """Return a thread of the agent's graph. Outside training every reply is accepted."""
    from eapo_agents.recipe_rules import is_own
    from eapo_agents.schedules import AcceptanceSchedule
    from graphs.conversation import Conversation

    policy = agent.policy(agent.sampling)
    always = AcceptanceSchedule(kind="constant")
    return Conversation(
        graph=agent.graph(policy, checkpointer, acceptance=always),
        solo_graph=agent.solo_graph(policy, checkpointer) if is_own(agent.recipe.graph) else None,
        inputs=agent.inputs,
        answer_of=agent.answer_of,
        policy=policy,
        thread_id=thread_id,
        system_prompt=agent.recipe.task.system_prompt,
        seed=agent.recipe.seed,
    )


async def to_its_end(
    talk: Conversation,
    events: AsyncIterator[Event],
    console: Console,
    view: TurnView | None,
    kept: list[Event],
    ask: Callable[[PersonAsked, Console], Awaitable[str | list[Decision]]] | None = None,
) -> None:
    """Show a turn, and ask the people that it asks."""
    from graphs.events import PersonAsked

    while True:
        waiting: list[PersonAsked] = []
        try:
            async for event in events:
                kept.append(event)
                if isinstance(event, PersonAsked):
                    waiting.append(event)
                elif view is not None:
                    view.show(event)
        finally:
            if view is not None:
                view.close()
        if not waiting:
            return
        replies = {one.id: await (ask or ask_plainly)(one, console) for one in waiting}
        events = talk.reply(replies)


async def ask_plainly(asked: PersonAsked, console: Console) -> str | list[Decision]:
    """Read a person's reply or decisions from the terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"A person has to reply or decide for '{asked.expert}', and nobody can be asked here: "
            "run the command in a terminal."
        )

    async def read(prompt: str, given: str) -> str:
        told = f"{prompt}[{safe_text(given)}] " if given else prompt
        return await asyncio.to_thread(input, told) or given

    return await ask_person(asked, read, lambda text: console.print(Text(safe_text(text))))
