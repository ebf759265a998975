"""Turns that are several messages, each with its channel or recipient: gpt-oss (harmony), Muse."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.policy.formats.base import (
    Call,
    Format,
    ParsedCall,
    ParsedTurn,
    Span,
    dumps,
    with_arguments,
)
from eapo_agents.policy.formats.xml import TaggedArguments

_START, _MESSAGE, _CHANNEL = "<|start|>", "<|message|>", "<|channel|>"
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_IN_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")


@dataclass(frozen=True, kw_only=True)
class Channels(Format):
    """`<|start|>assistant HEADER<|message|>BODY END`; the prompt ends with `<|start|>assistant`."""

    ends_of_message: tuple[str, ...]
    prefix: str
    """Of a recipient that is a tool."""
    body: TaggedArguments | None = None
    """How a call's body is written; None is JSON."""
    header: str
    """How a call's header is written ({name})."""

    def _messages(self, text: str) -> list[tuple[int, int, str, str, bool]]:
        """Return each message: its start, its body's end, header, body, whether it has an end."""
        found = []
        position = 0
        ends = re.compile("|".join(map(re.escape, (*self.ends_of_message, _START))))
        while (at := text.find(_MESSAGE, position)) >= 0:
            start = max(text.rfind(_START, position, at), position)
            inside = at + len(_MESSAGE)
            end = ends.search(text, inside)
            stop = end.start() if end else len(text)
            found.append((start, stop, text[start:at], text[inside:stop], end is not None))
            position = end.end() if end and end.group() != _START else stop
        return found

    def find(self, text: str, start: int) -> Span | None:
        for begin, end, header, body, _ in self._messages(text[start:]):
            if name := self._tool(header):
                calls = self._calls(name, body)
                return Span(start=start + begin, end=start + end, calls=calls)
        return None

    def _tool(self, header: str) -> str:
        """Return the name of the tool that a message is for; empty for other messages."""
        to = _RECIPIENT.search(header)
        if to is None or (header.startswith(_START) and "assistant" not in header):
            return ""
        recipient = to.group(1)
        if recipient in ("self", "user", "assistant", "all"):
            return ""
        return recipient.removeprefix(self.prefix)

    def _calls(self, name: str, body: str) -> tuple[Call, ...]:
        if self.body is not None and (span := self.body.find(body, 0)):
            return span.calls
        return (with_arguments(name, body.strip() or "{}", body),)

    def _split(self, text: str, in_thought: bool) -> ParsedTurn:
        messages = self._messages(text)
        if not messages:
            said = re.split("|".join(map(re.escape, self.ends_of_message)), text)[0]
            cut = _CHANNEL in said or said.lstrip().startswith("to=")
            return ParsedTurn(content="" if cut else said.strip(), calls=(), unfinished=cut)
        content: list[str] = []
        thinking: list[str] = []
        calls: list[Call] = []
        unfinished = False
        for _, _, header, body, ended in messages:
            channel = _IN_CHANNEL.search(header)
            thought = "to=self" in header or (channel is not None and channel[1] == "analysis")
            if name := self._tool(header):
                calls += self._calls(name, body)
            elif thought:
                thinking.append(body.strip())
                unfinished = not ended
            else:
                content.append(body.strip())
        return ParsedTurn(
            content="" if unfinished and not calls else "\n".join(filter(None, content)),
            calls=tuple(calls),
            thinking="\n".join(filter(None, thinking)),
            unfinished=unfinished,
        )

    def has_thought(self, text: str) -> bool:
        return self.thoughts[0][0] in text

    def render(self, calls: Sequence[ParsedCall]) -> str:
        between = f"{self.ends_of_message[-1]}{_START}assistant"
        return between.join(
            self.header.format(name=call.name)
            + (self.body.render([call]) if self.body else dumps(call.arguments))
            for call in calls
        )


HARMONY = Channels(
    name="gpt-oss's channels (harmony)",
    marks=(_START, _MESSAGE, _CHANNEL, "<|constrain|>", "<|call|>", "<|return|>", "<|end|>"),
    signs=("# Valid channels: analysis, commentary, final", "namespace functions"),
    thoughts=((f"{_CHANNEL}analysis{_MESSAGE}", "<|end|>"),),
    turn_ends=("<|return|>", "<|call|>"),
    answer_opening=f"{_CHANNEL}final{_MESSAGE}",
    ends_of_message=("<|return|>", "<|end|>", "<|call|>"),
    prefix="functions.",
    header=f" to=functions.{{name}}{_CHANNEL}commentary json{_MESSAGE}",
)
_INVOKE = TaggedArguments(
    name="",
    opening=r"<atem:function_calls>|<atem:invoke(?= name=)",
    closing=r"</atem:invoke>\s*</atem:function_calls>|</atem:function_calls>|</atem:invoke>",
    head=r"\s*(?:<atem:invoke)?\s*name=\"(?P<name>[^\"]+)\">",
    argument=r"<atem:parameter name=\"(?P<key>[^\"]+)\">(?P<value>.*?)</atem:parameter>"
    r"(?=\s*(?:<atem:parameter|</atem:invoke>|\Z))",
    written=(
        '<atem:invoke name="{name}">\n',
        '<atem:parameter name="{key}">{value}</atem:parameter>\n',
        "</atem:invoke>",
    ),
    block=("<atem:function_calls>\n", "\n</atem:function_calls>"),
)
MUSE = Channels(
    name="Muse's recipients",
    as_text=True,
    marks=(_START, _MESSAGE, "<|eom|>", "<|eot|>"),
    signs=("<atem:invoke name=", "# Valid recipients:"),
    thoughts=((f"to=self{_MESSAGE}", "<|eom|>"),),
    turn_ends=("<|eot|>",),
    answer_opening=f" to=user{_MESSAGE}",
    ends_of_message=("<|eot|>", "<|eom|>"),
    prefix="",
    body=_INVOKE,
    header=f" to={{name}}{_MESSAGE}",
)
