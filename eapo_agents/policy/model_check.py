"""What a model can do as a policy, as its tokenizer and its chat template say; no weights are
read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from eapo_agents.errors import ModelError
from eapo_agents.policy.formats import ParsedCall
from eapo_agents.policy.models import find_model, load_tokenizer
from eapo_agents.policy.protocols import Tokenizer
from eapo_agents.policy.rendering import ChatRenderer

_TOOL = {
    "type": "function",
    "function": {
        "name": "solver",
        "description": "Solves a problem.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "The problem."}},
            "required": ["query"],
        },
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCheck:
    """What was found."""

    facts: Mapping[str, str] = field(default_factory=dict)
    """What is shown, by its title."""
    notes: tuple[str, ...] = ()
    """What will be done differently, or refused, at a rollout."""
    blocking: tuple[str, ...] = ()
    """Why it cannot be a policy."""
    example: str = ""
    """The prompt of a turn after two replies, as text."""


def check_model(name: str, template: Mapping[str, object] | None = None) -> ModelCheck:
    """Look at a model's tokenizer and chat template.

    Raises:
        ModelError: there is no such model.
        UsageError: the template does not use one of its variables.
    """
    tokenizer = load_tokenizer(name)
    context = _context_length(name)
    facts = {"context length": context} if context else {}
    return check_tokenizer(tokenizer, template, facts)


def check_tokenizer(
    tokenizer: Tokenizer,
    template: Mapping[str, object] | None = None,
    more: Mapping[str, str] | None = None,
) -> ModelCheck:
    """Look at a chat template.

    Args:
        more: further facts to show.
    """
    try:
        renderer = ChatRenderer(tokenizer, template)
        example = _example(renderer)
    except ModelError as error:
        return ModelCheck(facts=dict(more or {}), blocking=(str(error),))
    facts = {**_facts(renderer), **(more or {})}
    return ModelCheck(facts=facts, notes=_notes(renderer), example=example)


def _facts(renderer: ChatRenderer) -> dict[str, str]:
    template, form = renderer.template, renderer.format
    decode = renderer.tokenizer.decode
    tokens = [mark for mark in form.marks if mark in renderer.added]
    return {
        "calls": form.name,
        "taught by": "the chat template" if template.has_tools else "our tool section",
        "an example": form.render([ParsedCall(name="solver", arguments={"query": "1 + 1"})]),
        "marks that are tokens": " ".join(tokens) or "none",
        "a turn ends with": " ".join(decode([i]) for i in sorted(renderer.stop_ids)),
        "replies": f"in the role '{template.reply_role}'"
        + (", those of a turn joined" if template.joins_replies else ""),
        "system prompt": "its own message" if template.has_system else "in the first question",
        "thoughts": _thoughts(renderer),
    }


def _thoughts(renderer: ChatRenderer) -> str:
    template = renderer.template
    begin = "the prompt opens one" if template.opened else "the model opens one itself"
    if template.keeps_thought_before_user:
        return f"{begin}; later turns see them"
    if template.keeps_thought_before_reply:
        return f"{begin}; the next question hides them"
    return f"{begin}; the next turn does not see them"


def _notes(renderer: ChatRenderer) -> tuple[str, ...]:
    template = renderer.template
    found = [
        (not template.has_tools, "The template does not describe tools: the system prompt does."),
        (not template.has_system, "The template has no system role: its text opens the question."),
        (
            not template.has_later_system,
            "A later system message goes into the next message of the user.",
        ),
        (template.alternates, "Roles must alternate: messages of one role in a row are joined."),
        (
            template.max_calls == 1,
            "The template takes one call a turn: further calls of a turn are refused.",
        ),
        (
            not template.keeps_thought_before_reply,
            "The template drops a turn's thought before a reply: a turn with a thought begins a "
            "new training row.",
        ),
        (
            template.keeps_thought_before_reply and not template.keeps_thought_before_user,
            "The template drops thoughts when the next question comes: in a conversation, a turn "
            "with a thought begins a new training row.",
        ),
    ]
    return tuple(note for holds, note in found if holds)


def _example(renderer: ChatRenderer) -> str:
    """Return the prompt behind two calls and their replies, or behind one where a turn has one."""
    count = renderer.template.max_calls or 2
    calls = [
        ParsedCall(name="solver", arguments={"query": f"{n} + 1"}) for n in range(1, count + 1)
    ]
    turn = AIMessage(
        content="",
        tool_calls=[
            {"type": "tool_call", "name": call.name, "args": call.arguments, "id": f"call_{n}"}
            for n, call in enumerate(calls)
        ],
    )
    replies = [
        ToolMessage(content=f"{n + 2}", tool_call_id=f"call_{n}", name="solver")
        for n in range(count)
    ]
    asked = [SystemMessage("Be brief."), HumanMessage("What is (1 + 1) * (2 + 1)?")]
    text = str(renderer.tokenizer.decode(renderer.prompt([*asked, turn, *replies], [_TOOL])))
    wanted = ["Be brief.", "What is (1 + 1) * (2 + 1)?", "solver"]
    missing = [part for part in wanted if part not in text]
    if missing:
        raise ModelError(
            f"The policy's chat template leaves out '{missing[0]}' of a conversation with tools: "
            "use another model, or another chat_template in its tokenizer_config.json."
        )
    renderer.continuation(replies, closed_by=renderer.end_of_turn_id, after=turn)
    renderer.continuation([HumanMessage("And?")], closed_by=renderer.end_of_turn_id)
    return text


def _context_length(name: str) -> str:
    """Return the length that the model's configuration names; empty where it is not at hand."""
    file = Path(find_model(name).location) / "config.json"
    try:
        facts = json.loads(file.read_text())
    except (OSError, ValueError):
        return ""
    text = facts.get("text_config") or facts
    length = text.get("max_position_embeddings") if isinstance(text, dict) else None
    return f"{length} tokens" if isinstance(length, int) else ""
