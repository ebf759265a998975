"""`eapo run`: one question, in a terminal, in a pipe or for a program."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli.output import safe_text
from eapo_agents.cli.progress import TERMINAL
from eapo_agents.cli.turn_view import TurnView, screen
from eapo_agents.cli.turns import conversation, to_its_end
from eapo_agents.recipe import Recipe
from eapo_agents.runs.folder import expert_file
from eapo_agents.runs.loading import load_agent

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from graphs.events import Event


def run(recipe: Recipe, question: str, *, solo: bool, as_json: bool) -> None:
    """Ask one question and show its turns. If stdout is not a terminal, it gets only the
    answer."""
    from langgraph.checkpoint.memory import InMemorySaver

    agent = load_agent(recipe, TERMINAL)
    run_id = f"run-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    agent.pool.open(expert_file(recipe, Path("runs")), run_id)
    talk = conversation(agent, InMemorySaver(), run_id)
    talk.solo = solo
    console = screen()
    events: list[Event] = []  # the last one is `Ended`: `to_its_end` returns after it

    async def one() -> None:
        view = TurnView(console) if not as_json else None
        await to_its_end(talk, talk.ask(question), console, view, events)

    asyncio.run(one())
    if as_json:
        print(json.dumps(_result(question, events, asyncio.run(talk.messages()))))
    elif console.stderr:
        print(safe_text(events[-1].answer))  # type: ignore[union-attr]


def _result(
    question: str, events: Sequence[Event], messages: Sequence[BaseMessage]
) -> dict[str, object]:
    """Return a question and its turns as an object for programs."""
    from eapo_agents.types import total_known
    from graphs.events import Ended, Replied
    from graphs.turns import turns_of

    ended = next(event for event in events if isinstance(event, Ended))
    costs = [event.cost_usd for event in events if isinstance(event, Replied)]
    return {
        "question": question,
        "answer": ended.answer,
        "stop_reason": ended.stop_reason,
        "turns": [
            {
                "text": turn.text,
                "tokens": turn.num_sampled,
                "consultations": [asdict(c) for c in turn.consultations],
            }
            for turn in turns_of(messages)
        ],
        "sampled_tokens": ended.sampled_tokens,
        "cost_usd": total_known([*costs, ended.cost_usd]),
        "seconds": ended.seconds,
    }
