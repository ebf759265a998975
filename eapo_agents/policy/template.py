"""Finds out what a chat template can do: by rendering probes with it, never by a model's name.

Contents are placeholders, so that what the template writes around them can be told from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from eapo_agents.errors import ModelError
from eapo_agents.policy.drafting import (
    ESCAPES,
    PLAIN_KEY,
    TOOL,
    TRICKY,
    Draft,
    Escape,
    Message,
    as_json,
    end_of_slot,
    escapes_of,
    in_parts,
    ordered,
    probe_arguments,
    reply,
    said,
    short_id,
)
from eapo_agents.policy.formats import FAMILIES, HERMES, Format, ParsedCall
from eapo_agents.policy.formats.typed import typed_arguments
from eapo_agents.policy.protocols import Tokenizer

_THOUGHT = "eapo thought"


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
        self.has_tools = "eapo_probe" in (self.tried([said("user", 0)], [TOOL]) or "")
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
            messages = [in_parts(message) for message in messages]
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
                "name": name if PLAIN_KEY.fullmatch(name) else draft.put(name, inner=True),
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
                if PLAIN_KEY.fullmatch(str(key))
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
        messages = [said(role, index) for index, role in enumerate(roles)]
        return ordered(self.tried(messages), *(f"EAPOSLOT{n}X" for n in range(len(roles))))

    def _find_contents(self) -> None:
        for self.in_parts in (False, True):
            if self._has(("user", "assistant", "user")) and self._has(("user",)):
                return
        self.in_parts = False
        self.render([said("user", 0)])
        self.render([said("user", 0), said("assistant", 1), said("user", 2)])
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
        self.escapes = (as_json, as_json)
        self._find_taught()
        self._find_plain_replies()

    def _reader(self, frame: str, count: int) -> Format | None:
        """Return the form that reads the calls of a frame, best the one that writes them so."""
        readers = [form for form in FAMILIES if self._reads(form, frame, count)]
        call = ParsedCall(name="eapo_probe", arguments=probe_arguments(TRICKY, TRICKY))
        same = [form for form in readers if form.render([call] * count) in frame]
        if same or not readers:
            return same[0] if same else None

        def num_alike(form: Format) -> int:
            span = form.find(frame, end_of_slot(frame, 0))
            written = frame[span.start :] if span else ""
            texts = ("".join(text.split()) for text in (written, form.render([call] * count)))
            pairs = enumerate(zip(*texts, strict=False))
            return next((n for n, (one, other) in pairs if one != other), len(written))

        return max(readers, key=num_alike)

    def _find_taught(self) -> None:
        """Where the template shows tools but writes no calls, read which form it teaches."""
        if not self.has_tools:
            return
        shown = self.tried([said("user", 0)], [TOOL]) or ""
        plain = self.tried([said("user", 0)]) or ""
        signs = [f for f in FAMILIES if all(s in shown and s not in plain for s in f.signs)]
        if signs:  # the one with the most to go by
            self.format = max(signs, key=lambda one: sum(map(len, one.signs)))
            self.escapes = escapes_of(self.format)
        else:
            self.has_tools = False  # tools without a form of calls: ours is taught

    def _with_calls(
        self,
        count: int,
        tools: Sequence[Mapping[str, object]] | None,
        arguments: Mapping[str, object] | None = None,
        replies: Sequence[str] = ("EAPOSLOT7X", "EAPOSLOT8X"),
    ) -> str | None:
        given = probe_arguments(TRICKY, TRICKY) if arguments is None else arguments
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
                said("user", 0),
                {"role": "assistant", "content": "", "tool_calls": calls},
                *(reply(one, str(min(n, count - 1))) for n, one in enumerate(replies)),
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
        return found == [("eapo_probe", probe_arguments(TRICKY, TRICKY))] * count

    def _find_escapes(self, tools: Sequence[Mapping[str, object]] | None) -> bool:
        """Find how the template writes the strings of a call."""
        told = self._with_calls(1, tools)
        slots = self._with_calls(1, tools, probe_arguments("EAPOSLOT1X", "EAPOSLOT2X"))
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
        asked = [said("user", 0), said("assistant", 1)]
        prompt = self.tried([*asked, said("user", 7)]) or ""
        after = prompt[end_of_slot(prompt, 7) :]
        for count in (2, 1):
            slots = [7, 8][:count]
            frame = self.tried([*asked, *(reply(f"EAPOSLOT{n}X", "0") for n in slots)])
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
            if self._shows_thought(reply("EAPOSLOT7X", "0")):
                break
        else:
            self.thought_inline = False
        self.keeps_thought_before_reply = self._shows_thought(reply("EAPOSLOT7X", "0"))
        self.keeps_thought_before_user = self._shows_thought(said("user", 7))
        prompt = self.render([said("user", 0)])
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
        return _THOUGHT in (self.tried([said("user", 0), turn, then]) or "")

    def add_thought(self, turn: Message, thought: str) -> None:
        """Put a thought on an assistant's message."""
        if self.thought_key is not None:
            turn[self.thought_key] = thought
        elif self.thought_inline:
            opening, close = self.format.thoughts[0]
            turn["content"] = f"{opening}\n{thought}\n{close}\n\n{turn['content']}"
