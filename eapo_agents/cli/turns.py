"""A turn of the agent, from its question to its end: what `eapo chat` and `eapo run` share."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from rich.text import Text

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.turn_view import TurnView
from eapo_agents.errors import UsageError

if TYPE_CHECKING:
    from langgraph.checkpoint.base import BaseCheckpointSaver
    from rich.console import Console

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
    ask_person: Callable[[PersonAsked, Console], Awaitable[str]] | None = None,
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
        replies = {one.id: await (ask_person or ask_plainly)(one, console) for one in waiting}
        events = talk.reply(replies)


async def ask_plainly(asked: PersonAsked, console: Console) -> str:
    """Read a person's reply from the terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"The expert '{asked.expert}' is a person, and nobody can be asked here: run the "
            "command in a terminal."
        )
    console.print(Text(f"? {safe_text(asked.expert)} is asked: {safe_text(asked.query)}"))
    return await asyncio.to_thread(input, "reply> ")
