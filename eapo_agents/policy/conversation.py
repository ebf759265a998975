"""Conversations as a chat template takes them: in its roles, in its order, with its form of
calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eapo_agents.errors import UsageError
from eapo_agents.policy.drafting import Draft, Message, short_id
from eapo_agents.policy.formats import THOUGHT, ParsedCall
from eapo_agents.policy.template import Template

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One message of the template: its role and what it says."""

    role: str
    content: str
    message: BaseMessage | None = None


class Conversation:
    """Writes messages for one template."""

    def __init__(self, template: Template) -> None:
        self.template = template

    def parts(self, messages: Sequence[BaseMessage], section: str = "") -> list[Part]:
        """Return messages in the roles that the template has."""
        parts: list[Part] = []
        waiting: list[str] = []
        """Of the system, for the next message of the user."""
        for message in messages:
            role = self._role(message)
            part = Part(role=role, content=_content(message), message=message)
            if role == "system" and not parts and not waiting and self.template.has_system:
                part = replace(part, content=_joined(part.content, section))
                section = ""
            elif role == "system" and not (parts and self.template.has_later_system):
                waiting.append(part.content)
                continue
            if section and not parts and role != "system":
                parts, waiting, section = self._opened(waiting, section)
            if waiting and role == "user":
                part = replace(part, content="\n\n".join([*waiting, part.content]))
                waiting = []
            if waiting and role == "assistant":
                self._add(parts, Part(role="user", content="\n\n".join(waiting)))
                waiting = []
            self._add(parts, part)
        if section:
            parts, waiting, section = self._opened(waiting, section)
        if waiting:
            self._add(parts, Part(role="user", content="\n\n".join(waiting)))
        return parts

    def _opened(self, waiting: list[str], section: str) -> tuple[list[Part], list[str], str]:
        """Put the tools into a system message, or into what waits for the user's."""
        if self.template.has_system:
            return [Part(role="system", content=section)], waiting, ""
        return [], [_joined("\n\n".join(waiting), section)], ""

    def _add(self, parts: list[Part], part: Part) -> None:
        last = parts[-1].role if parts else None
        joins = self.template.joins_replies if part.role == "tool" else self.template.alternates
        if joins and last == part.role and part.role in ("user", "tool"):
            parts[-1] = replace(parts[-1], content=f"{parts[-1].content}\n\n{part.content}")
        else:
            parts.append(part)

    def _role(self, message: BaseMessage) -> str:
        role = _ROLES.get(message.type)
        if role is None:
            raise UsageError(
                f"The policy reads {', '.join(_ROLES)} messages, got '{message.type}'."
            )
        return self.template.reply_role if role == "tool" else role

    def written(
        self, parts: Sequence[Part], draft: Draft, after: AIMessage | None = None
    ) -> list[Message]:
        """Return the template's messages, with placeholders for their contents."""
        turns = [after, *(part.message for part in parts)]
        names = {
            call["id"]: call["name"]
            for turn in turns
            if isinstance(turn, AIMessage)
            for call in turn.tool_calls
        }
        found: list[Message] = []
        for part in parts:
            if isinstance(part.message, AIMessage):
                found.append(self._turn(part.message, part.content, draft))
                continue
            written: Message = {"role": part.role, "content": part.content}
            if part.role == "tool":
                assert isinstance(part.message, ToolMessage)
                identity = part.message.tool_call_id
                written["content"] = self.template.reply_escape(part.content)
                written["tool_call_id"] = short_id(str(identity))
                written["name"] = part.message.name or names.get(identity) or "tool"
            written["content"] = draft.put(str(written["content"]))
            found.append(written)
        return found

    def _turn(self, message: AIMessage, text: str, draft: Draft) -> Message:
        """Return an assistant's message, with its calls and its thought."""
        content = draft.put(text)
        turn: Message = {"role": "assistant", "content": content}
        calls = [(str(c["id"]), c["name"], c["args"]) for c in message.tool_calls]
        limit = self.template.max_calls
        if calls and self.template.has_calls and (limit is None or len(calls) <= limit):
            turn["content"] = content if text else ""
            turn["tool_calls"] = self.template.calls(draft, calls)
        elif calls:
            written = self.template.format.render(
                [
                    ParsedCall(name=name, arguments=self._slotted(draft, arguments))
                    for _, name, arguments in calls
                ]
            )
            turn["content"] = f"{content}\n{written}" if text else written
        thought = message.additional_kwargs.get(THOUGHT)
        if isinstance(thought, str) and thought:
            self.template.add_thought(turn, draft.put(thought))
        return turn

    def _slotted(self, draft: Draft, arguments: Mapping[str, object]) -> dict[str, object]:
        slotted = self.template.slotted(draft, arguments)
        assert isinstance(slotted, dict)
        return slotted


def _joined(text: str, section: str) -> str:
    return f"{text}\n{section}" if text and section else text or section


def _content(message: BaseMessage) -> str:
    text = message.text
    if isinstance(message, ToolMessage) and not text:
        return json.dumps(message.content, ensure_ascii=False)
    return text
