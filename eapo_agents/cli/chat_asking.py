"""Asks a person about calls that wait for them: to approve, edit or refuse one, or to reply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from eapo_agents.experts.consulting import query_text
from eapo_agents.experts.review import APPROVE, EDIT, REJECT, RESPOND, Action, Decision

if TYPE_CHECKING:
    from graphs.events import PersonAsked

Read = Callable[[str, str], Awaitable[str]]
"""Reads a line: prompt, and what stands there already -> what was typed."""
Say = Callable[[str], None]
_WORDS = {APPROVE: "Enter sends it", EDIT: "e edits", REJECT: "n refuses", RESPOND: "r replies"}
_KEYS = {
    **dict.fromkeys(("", "y", "yes"), APPROVE),
    **dict.fromkeys(("e", "edit"), EDIT),
    **dict.fromkeys(("n", "no"), REJECT),
    **dict.fromkeys(("r", "reply"), RESPOND),
}


async def ask_person(asked: PersonAsked, read: Read, say: Say) -> str | list[Decision]:
    """Return what a person replies: a decision for each call, or a text."""
    if not asked.actions:
        say(f"? {asked.expert} is asked: {asked.query}")
        return await read("reply> ", "")
    return [await _decision(action, read, say) for action in asked.actions]


async def _decision(action: Action, read: Read, say: Say) -> Decision:
    if APPROVE not in action.allowed and RESPOND in action.allowed:
        say(f"? {action.name} is asked: {query_text(action.arguments)}")
        return Decision(type=RESPOND, message=await read("reply> ", ""))
    say(f"? {action.description or f'{action.name}: {query_text(action.arguments)}'}")
    choices = ", ".join(text for kind, text in _WORDS.items() if kind in action.allowed)
    while True:
        kind = _KEYS.get((await read(f"send? ({choices})> ", "")).strip().lower())
        if kind in action.allowed:
            break
        say(f"That is not one of these: {choices}.")
    if kind == EDIT:
        return await _edited(action, read, say)
    if kind == REJECT:
        return Decision(type=REJECT, message=await read("reason (Enter for none)> ", ""))
    return Decision(type=kind, message=await read("reply> ", "") if kind == RESPOND else "")


async def _edited(action: Action, read: Read, say: Say) -> Decision:
    """Return the call with other arguments: the query alone, or all of them as JSON."""
    alone = list(action.arguments) == ["query"] and isinstance(action.arguments["query"], str)
    typed = query_text(action.arguments)
    while True:
        typed = await read("query> " if alone else "arguments> ", typed)
        arguments: object = {"query": typed} if alone else _object(typed)
        if isinstance(arguments, Mapping):
            edited = Action(name=action.name, arguments=arguments)
            return Decision(type=EDIT, edited=edited)
        say('The arguments are one JSON object, such as {"query": "7 + 3"}.')


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
