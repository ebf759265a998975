"""Finds out what a chat template can do: by rendering probes with it, never by a model's name.

Contents are placeholders, so that what the template writes around them can be told from them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from eapo_agents.errors import ModelError
from eapo_agents.policy.formats import FAMILIES, HERMES, Format, ParsedCall
from eapo_agents.policy.formats.typed import typed_arguments
from eapo_agents.policy.protocols import Tokenizer

Message = dict[str, object]
SLOT = re.compile(r"EAPOSLOT(\d+)X")
_PLAIN_KEY = re.compile(r"[\w-]+")
TRICKY = "a \"b\" \\frac{1}{2} \\n 'c' é <d> & \n2nd"
"""Whatever a template may have to escape."""
TOOL: Mapping[str, object] = {
    "type": "function",
    "function": {
        "name": "eapo_probe",
        "description": "Answers a question.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "The question."},
                "options": {"type": "object", "description": "More."},
                "number": {"type": "integer", "description": "How many."},
            },
            "required": ["query"],
        },
    },
}
_THOUGHT = "eapo thought"

Escape = Callable[[str], str]


def _as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _as_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _as_python(text: str) -> str:
    for plain, code in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, code)
    return text


ESCAPES: tuple[Escape, ...] = (str, _as_json, _as_ascii, _as_python)
"""How a template may write a string."""


@dataclass(slots=True)
class Draft:
    """The contents that the placeholders of one conversation stand for."""

    contents: list[str] = field(default_factory=list)
    inner: set[int] = field(default_factory=set)
    """Those that stand within a call, not by themselves."""

    def put(self, text: str, *, inner: bool = False) -> str:
        """Return a placeholder."""
        if inner:
            self.inner.add(len(self.contents))
        self.contents.append(text)
        return f"EAPOSLOT{len(self.contents) - 1}X"


def end_of_slot(frame: str, slot: int) -> int:
    marker = f"EAPOSLOT{slot}X"
    return frame.rindex(marker) + len(marker)


def ordered(frame: str | None, *texts: str) -> bool:
    """Whether a frame has these texts in this order."""
    position = 0
    for text in texts:
        position = -1 if frame is None else frame.find(text, position)
        if position < 0:
            return False
    return True


class Template:
    """A tokenizer's chat template, and how conversations have to be written for it."""

    def __init__(self, tokenizer: Tokenizer, variables: Mapping[str, object]) -> None:
        """Render the probes.

        Raises:
            ModelError: the template cannot render a question and its answer.
        """
        self._tokenizer = tokenizer
        self._variables = dict(variables)
        self.in_parts = False
        """Whether a content is a list of parts."""
        self._find_contents()
        self.has_system = self._has(("system", "user"))
        later = ("system", "user", "assistant", "system", "user")
        self.has_later_system = self.has_system and self._has(later)
        self.alternates = not self._has(("user", "user"))
        self.format: Format = HERMES
        self.has_tools = "eapo_probe" in (self.tried([_said("user", 0)], [TOOL]) or "")
        self.has_calls = False
        """Whether the template writes calls itself."""
        self.max_calls: int | None = None
        self.arguments_in_text = False
        self.escapes: tuple[Escape, Escape] = (str, str)
        """Of the strings of a call: an argument, and one deeper within."""
        self.reply_role = "tool"
        self.reply_escape: Escape = str
        self.joins_replies = False
        self._find_calls()
        self._find_thoughts()

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        generation_prompt: bool = True,
    ) -> str:
        """Return the text of a conversation.

        Raises:
            ModelError: the template refuses it.
        """
        if self.in_parts:
            messages = [_in_parts(message) for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(
                messages,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=generation_prompt,
                **self._variables,
            )
        except Exception as error:  # templates raise whatever their authors chose
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ModelError(
                f"The policy's chat template cannot write this conversation ({said}): "
                "`eapo models check` shows what it can write."
            ) from error
        return str(text)

    def tried(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        *,
        generation_prompt: bool = True,
    ) -> str | None:
        """Return the text of a conversation; None where the template refuses it."""
        try:
            return self.render(messages, tools, generation_prompt=generation_prompt)
        except ModelError:
            return None

    def calls(
        self, draft: Draft, calls: Sequence[tuple[str, str, Mapping[str, object]]]
    ) -> list[Message]:
        """Return the template's form of calls (id, name, arguments), strings as placeholders."""
        found: list[Message] = []
        for identity, name, arguments in calls:
            slotted = self.slotted(draft, arguments)
            function = {
                "name": name if _PLAIN_KEY.fullmatch(name) else draft.put(name, inner=True),
                "arguments": json.dumps(slotted, ensure_ascii=False)
                if self.arguments_in_text
                else slotted,
            }
            found.append({"type": "function", "id": short_id(identity), "function": function})
        return found

    def slotted(self, draft: Draft, value: object, depth: int = 0) -> object:
        """Return arguments with placeholders for their strings."""
        escape = self.escapes[depth > 1]
        if isinstance(value, str):
            return draft.put(escape(value), inner=True)
        if isinstance(value, Mapping):
            return {
                key
                if _PLAIN_KEY.fullmatch(str(key))
                else draft.put(escape(str(key)), inner=True): self.slotted(draft, inner, depth + 1)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.slotted(draft, inner, depth + 1) for inner in value]
        return value

    def end_of_calls(self, frame: str, start: int, stop: int) -> int:
        """Return where the last call between two places of a frame ends; `start` for none."""
        while (span := self.format.find(frame, start)) and span.start < stop:
            start = span.end
        return start

    def _has(self, roles: Sequence[str]) -> bool:
        """Whether the template writes the contents of messages of these roles in their order."""
        messages = [_said(role, index) for index, role in enumerate(roles)]
        return ordered(self.tried(messages), *(f"EAPOSLOT{n}X" for n in range(len(roles))))

    def _find_contents(self) -> None:
        for self.in_parts in (False, True):
            if self._has(("user", "assistant", "user")) and self._has(("user",)):
                return
        self.in_parts = False
        self.render([_said("user", 0)])
        self.render([_said("user", 0), _said("assistant", 1), _said("user", 2)])
        raise ModelError(
            "The policy's chat template leaves out a question or an answer: a conversation cannot "
            "be written with it. Use another model, or another chat_template in its "
            "tokenizer_config.json."
        )

    def _find_calls(self) -> None:
        """Find the form of calls: the one in which the template writes those of a probe."""
        tools = [TOOL] if self.has_tools else None
        for self.arguments_in_text in (False, True):
            for count in (2, 1):
                frame = self._with_calls(count, tools)
                found = self._reader(frame, count) if frame else None
                if found and self._find_escapes(tools) and self._find_own_replies(tools):
                    self.format, self.has_calls = found, True
                    self.max_calls = 1 if count == 1 else None
                    return
        self.arguments_in_text = False
        self.escapes = (_as_json, _as_json)
        self._find_taught()
        self._find_plain_replies()

    def _reader(self, frame: str, count: int) -> Format | None:
        """Return the form that reads the calls of a frame, best the one that writes them so."""
        readers = [form for form in FAMILIES if self._reads(form, frame, count)]
        call = ParsedCall(name="eapo_probe", arguments=_arguments(TRICKY, TRICKY))
        same = [form for form in readers if form.render([call] * count) in frame]
        return next(iter([*same, *readers]), None)

    def _find_taught(self) -> None:
        """Where the template shows tools but writes no calls, read which form it teaches."""
        if not self.has_tools:
            return
        shown = self.tried([_said("user", 0)], [TOOL]) or ""
        plain = self.tried([_said("user", 0)]) or ""
        signs = [f for f in FAMILIES if all(s in shown and s not in plain for s in f.signs)]
        if signs:  # the one with the most to go by
            self.format = max(signs, key=lambda one: sum(map(len, one.signs)))
            self.escapes = _escapes_of(self.format)
        else:
            self.has_tools = False  # tools without a form of calls: ours is taught

    def _with_calls(
        self,
        count: int,
        tools: Sequence[Mapping[str, object]] | None,
        arguments: Mapping[str, object] | None = None,
        replies: Sequence[str] = ("EAPOSLOT7X", "EAPOSLOT8X"),
    ) -> str | None:
        given = _arguments(TRICKY, TRICKY) if arguments is None else arguments
        text = json.dumps(given, ensure_ascii=False) if self.arguments_in_text else given
        calls = [
            {
                "type": "function",
                "id": short_id(str(n)),
                "function": {"name": "eapo_probe", "arguments": text},
            }
            for n in range(count)
        ]
        return self.tried(
            [
                _said("user", 0),
                {"role": "assistant", "content": "", "tool_calls": calls},
                *(_reply(reply, str(min(n, count - 1))) for n, reply in enumerate(replies)),
            ],
            tools,
        )

    def _reads(self, form: Format, frame: str, count: int) -> bool:
        """Whether a form reads the probe's calls in a frame, and nothing else."""
        position = end_of_slot(frame, 0)
        stop = frame.find("EAPOSLOT7X")
        stop = len(frame) if stop < 0 else stop
        found: list[object] = []
        while (span := form.find(frame, position)) and span.start < stop:
            position = span.end
            if position > stop:
                return False
            for call in span.calls:
                if not isinstance(call, ParsedCall):
                    return False
                typed = typed_arguments(call.name, call.arguments, [TOOL])
                found.append((call.name, typed if form.as_text else call.arguments))
        return found == [("eapo_probe", _arguments(TRICKY, TRICKY))] * count

    def _find_escapes(self, tools: Sequence[Mapping[str, object]] | None) -> bool:
        """Find how the template writes the strings of a call."""
        told = self._with_calls(1, tools)
        slots = self._with_calls(1, tools, _arguments("EAPOSLOT1X", "EAPOSLOT2X"))
        if told is None or slots is None:
            return False
        for top in ESCAPES:
            for deep in ESCAPES:
                written = slots.replace("EAPOSLOT1X", top(TRICKY))
                if written.replace("EAPOSLOT2X", deep(TRICKY)) == told:
                    self.escapes = (top, deep)
                    return True
        return False

    def _find_own_replies(self, tools: Sequence[Mapping[str, object]] | None) -> bool:
        """Find how the template takes two replies to calls that it writes."""
        for self.joins_replies in (False, True):
            count = 1 if self.joins_replies else 2
            slots = ["EAPOSLOT7X", "EAPOSLOT8X"][:count]
            frame = self._with_calls(count, tools, replies=slots) or self._with_calls(
                1, tools, replies=slots
            )
            if not ordered(frame, *slots):
                continue
            told = self._with_calls(1, tools, replies=[TRICKY])
            slotted = self._with_calls(1, tools, replies=["EAPOSLOT7X"])
            for escape in ESCAPES:
                if slotted and slotted.replace("EAPOSLOT7X", escape(TRICKY)) == told:
                    self.reply_role, self.reply_escape = "tool", escape
                    return True
        return False

    def _find_plain_replies(self) -> None:
        """Find how the template takes replies to calls that are text to it."""
        asked = [_said("user", 0), _said("assistant", 1)]
        prompt = self.tried([*asked, _said("user", 7)]) or ""
        after = prompt[end_of_slot(prompt, 7) :]
        for count in (2, 1):
            slots = [7, 8][:count]
            frame = self.tried([*asked, *(_reply(f"EAPOSLOT{n}X", "0") for n in slots)])
            if ordered(frame, *(f"EAPOSLOT{n}X" for n in slots)) and str(frame).endswith(after):
                self.reply_role, self.joins_replies = "tool", count == 1
                return
        self.reply_role, self.joins_replies = "user", self.alternates

    def _find_thoughts(self) -> None:
        """Find how a turn's thought is written, and which later messages make it disappear."""
        self.thought_key: str | None = None
        """Of the message; None where the thought is part of the content, or never shown."""
        self.thought_inline = False
        for key in ("reasoning_content", "thinking", "reasoning", None):
            self.thought_key = key
            self.thought_inline = key is None
            if self._shows_thought(_reply("EAPOSLOT7X", "0")):
                break
        else:
            self.thought_inline = False
        self.keeps_thought_before_reply = self._shows_thought(_reply("EAPOSLOT7X", "0"))
        self.keeps_thought_before_user = self._shows_thought(_said("user", 7))
        prompt = self.render([_said("user", 0)])
        end = prompt[end_of_slot(prompt, 0) :].rstrip()
        self.opened = next((o for o, _ in self.format.thoughts if end.endswith(o)), "")
        """The mark with which a prompt opens a thought."""

    def _shows_thought(self, then: Message) -> bool:
        asked = then["role"] == "tool"
        turn: Message = {"role": "assistant", "content": "EAPOSLOT1X"}
        if asked and self.has_calls:
            turn["tool_calls"] = self.calls(Draft(), [("0", "eapo_probe", {})])
            turn["content"] = ""
        elif asked:
            then = {**then, "role": self.reply_role}
        self.add_thought(turn, _THOUGHT)
        return _THOUGHT in (self.tried([_said("user", 0), turn, then]) or "")

    def add_thought(self, turn: Message, thought: str) -> None:
        """Put a thought on an assistant's message."""
        if self.thought_key is not None:
            turn[self.thought_key] = thought
        elif self.thought_inline:
            opening, close = self.format.thoughts[0]
            turn["content"] = f"{opening}\n{thought}\n{close}\n\n{turn['content']}"


def short_id(identity: str) -> str:
    """Return a call's id as the strictest templates want it: nine letters and digits."""
    return hashlib.blake2b(identity.encode(errors="replace"), digest_size=5).hexdigest()[:9]


def _arguments(query: str, inner: str) -> dict[str, object]:
    return {"query": query, "options": {"of": [1, 2.5, True, inner]}, "number": 3}


def _escapes_of(form: Format) -> tuple[Escape, Escape]:
    """Return how a form that we write ourselves writes strings."""
    told = form.render([ParsedCall(name="f", arguments=_arguments(TRICKY, TRICKY))])
    slots = form.render([ParsedCall(name="f", arguments=_arguments("EAPOSLOT1X", "EAPOSLOT2X"))])
    for top in ESCAPES:
        for deep in ESCAPES:
            written = slots.replace("EAPOSLOT1X", top(TRICKY))
            if written.replace("EAPOSLOT2X", deep(TRICKY)) == told:
                return top, deep
    raise AssertionError(f"{form.name} writes strings in a way that is not in ESCAPES")


def _said(role: str, slot: int) -> Message:
    return {"role": role, "content": f"EAPOSLOT{slot}X"}


def _reply(content: str, call: str) -> Message:
    facts = {"name": "eapo_probe", "tool_call_id": short_id(call)}
    return {"role": "tool", "content": content, **facts}


def _in_parts(message: Message) -> Message:
    content = message["content"]
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}
