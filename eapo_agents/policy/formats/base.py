"""What every form of tool calls shares: a scanner that separates thought, calls and text.

Nothing here raises for a text, whatever a model writes. A call that cannot be sent becomes an
`InvalidCall`, whose reason the policy reads.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eapo_agents.policy.formats.lenient import read_values
from eapo_agents.policy.formats.typed import typed_arguments

MAX_CALL_CHARS = 20_000
"""Longer blocks are invalid: no expert's schema needs them, and nested JSON is parsed
recursively."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCall:
    """One well-formed call."""

    name: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidCall:
    """One call that cannot be sent, with the reason as a sentence for the policy."""

    text: str
    reason: str


Call = ParsedCall | InvalidCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedTurn:
    """A completion split into its text, its thought and its calls, in the order written."""

    content: str
    calls: tuple[Call, ...]
    thinking: str = ""
    unfinished: bool = False
    """Whether a thought was still open at the end: the turn was cut off, and has no content."""

    @property
    def named(self) -> tuple[tuple[str, Mapping[str, object]], ...]:
        """Name and arguments of each call; one that cannot be read has no name."""
        return tuple(
            ("", {}) if isinstance(call, InvalidCall) else (call.name, call.arguments)
            for call in self.calls
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A place of a text that is calls."""

    start: int
    end: int
    calls: tuple[Call, ...]


@dataclass(frozen=True, kw_only=True)
class Format(ABC):
    """How a family of models writes tool calls and thoughts."""

    name: str
    """What people call it."""
    marks: tuple[str, ...] = ()
    """The texts around calls and messages, which may be special tokens."""
    signs: tuple[str, ...] = ()
    """Texts by which a prompt teaches this form; all of them are there."""
    ends: tuple[str, ...] = ()
    """Marks behind the last call of a turn: sampling stops at them."""
    turn_ends: tuple[str, ...] = ()
    """The only ends of a turn, where the first special token behind an answer is not one."""
    answer_opening: str = ""
    """What stands before an answer, where a turn has messages of several kinds."""
    frames: tuple[str, ...] = ()
    """Marks around an answer that are not part of it."""
    as_text: bool = False
    """Whether the values of arguments are written as text, so that only a tool's schema tells
    `"1"` from `1`."""
    thoughts: tuple[tuple[str, str], ...] = (("<think>", "</think>"),)
    """How a thought opens and closes."""

    @abstractmethod
    def find(self, text: str, start: int) -> Span | None:
        """Return the first place with calls at or behind `start`."""

    @abstractmethod
    def render(self, calls: Sequence[ParsedCall]) -> str:
        """Return the text of calls, as `parse` reads it back."""

    def has_thought(self, text: str) -> bool:
        """Whether a completion may have a thought, an empty one counted."""
        return any(mark in text for pair in self.thoughts for mark in pair)

    def parse(
        self,
        text: str,
        *,
        in_thought: bool = False,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> ParsedTurn:
        """Split a completion. A call within a thought, and a tag within backticks, are text.

        Args:
            in_thought: whether the prompt has opened a thought already.
            tools: those on offer, in OpenAI's form.
        """
        turn = self._split(text, in_thought)
        if not self.as_text:
            return turn
        calls = tuple(
            replace(call, arguments=typed_arguments(call.name, call.arguments, tools))
            if isinstance(call, ParsedCall)
            else call
            for call in turn.calls
        )
        return replace(turn, calls=calls)

    def _split(self, text: str, in_thought: bool) -> ParsedTurn:
        content: list[str] = []
        thinking: list[str] = []
        calls: list[Call] = []
        position, unfinished = self._leading_thought(text, in_thought, thinking)
        while not unfinished:
            span = self.find(text, position)
            thought = self._next_thought(text, position, span.start if span else len(text))
            if thought is not None:
                opened, inside, close = thought
                content.append(text[position:opened])
                end = _find_plain(text, close, inside)
                thinking.append(text[inside : len(text) if end < 0 else end])
                unfinished, position = end < 0, end + len(close)
            elif span is not None:
                content.append(text[position : span.start])
                calls += span.calls
                position = span.end
            else:
                content.append(text[position:])
                break
        said = "".join(content)
        for frame in self.frames:
            said = said.replace(frame, "")
        said = said.strip()
        return ParsedTurn(
            content="" if unfinished and not calls else said,
            calls=tuple(calls),
            thinking="\n".join(part.strip() for part in thinking if part.strip()),
            unfinished=unfinished,
        )

    def _leading_thought(
        self, text: str, in_thought: bool, thinking: list[str]
    ) -> tuple[int, bool]:
        """Take the thought that the prompt has opened, or that has a close alone."""
        for opening, close in self.thoughts:
            end = _find_plain(text, close, 0)
            opened = _find_plain(text, opening, 0)
            if end >= 0 and not 0 <= opened < end:
                span = None if in_thought else self.find(text, 0)
                if span is None or span.start > end or span.end <= end:
                    thinking.append(text[:end])
                    return end + len(close), False
            elif in_thought and end < 0 and opened < 0:
                span = self.find(text, 0)
                if span is not None and not text[: span.start].strip():
                    return 0, False  # it calls at once, and leaves the thought's end out
                thinking.append(text)
                return len(text), True
            elif in_thought and 0 <= opened < end and text[:opened].strip():
                thinking.append(text[:end])  # the opening was a mention in the thought
                return end + len(close), False
        return 0, False

    def _next_thought(self, text: str, start: int, until: int) -> tuple[int, int, str] | None:
        """Return the next thought before `until`: (its start, that of its inside, its close)."""
        found = []
        for opening, close in self.thoughts:
            at = _find_plain(text, opening, start)
            inside = at + len(opening)
            # unclosed in the middle of a line, it is a mention
            alone = at >= 0 and not text[:at].rpartition("\n")[2].strip()
            if 0 <= at < until and (alone or _find_plain(text, close, inside) >= 0):
                found.append((at, inside, close))
        return min(found, default=None)


def _find_plain(text: str, mark: str, start: int) -> int:
    """Return where a mark is, the first that is not in backticks; -1 for none."""
    while (at := text.find(mark, start)) >= 0:
        if not quoted(text, at, at + len(mark)):
            return at
        start = at + len(mark)
    return -1


def quoted(text: str, start: int, end: int) -> bool:
    """Whether a mark stands in backticks, which makes it a mention."""
    return text[max(0, start - 1) : start] == "`" and text[end : end + 1] == "`"


def invalid(text: str, reason: str) -> InvalidCall:
    return InvalidCall(text=text[:MAX_CALL_CHARS], reason=reason)


def json_calls(body: str) -> tuple[Call, ...]:
    """Return the calls of a block of JSON: objects with a name and arguments."""
    if len(body) > MAX_CALL_CHARS:
        return (invalid(body[:200], "The tool call is too long."),)
    try:
        values = read_values(body)
    except RecursionError:
        return (invalid(body, "The tool call is not valid JSON: it is nested too deeply."),)
    except ValueError as error:
        return (invalid(body, f"The tool call is not valid JSON: {error}."),)
    return tuple(_json_call(value, body) for value in values) or (
        invalid(body, 'The tool call needs "name" and "arguments".'),
    )


_NAMES = ("name", "tool_name")
_ARGUMENTS = ("arguments", "parameters")
_OTHERS = frozenset({"id", "type", "tool_call_id", "call_id", *_NAMES, *_ARGUMENTS})


def _json_call(call: object, body: str) -> Call:
    if isinstance(call, dict) and isinstance(call.get("function"), dict):
        call = call["function"]
    if not isinstance(call, dict):
        return invalid(body, 'The tool call needs "name" and "arguments".')
    name = next((call[key] for key in _NAMES if key in call), None)
    if not isinstance(name, str):
        return invalid(body, 'The tool call needs "name" and "arguments".')
    unknown = [str(key) for key in call if key not in _OTHERS]
    if unknown:
        return invalid(
            body,
            f'The tool call has "{unknown[0][:40]}" beside its "name": '
            'put the arguments into "arguments".',
        )
    return with_arguments(name, next((call[key] for key in _ARGUMENTS if key in call), {}), body)


def with_arguments(name: str, arguments: object, body: str) -> Call:
    """Return the call, its arguments being an object or the text of one."""
    if isinstance(arguments, str):
        try:
            (arguments,) = read_values(arguments)
        except (ValueError, RecursionError) as error:
            return invalid(body, f'"arguments" must be a JSON object: {error}.')
    if not isinstance(arguments, dict) or not name.strip():
        return invalid(body, '"arguments" must be a JSON object.')
    return ParsedCall(name=name.strip(), arguments=arguments)


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def end_of_json(text: str, start: int) -> int:
    """Return where the JSON value that begins at `start` ends; the text's end where none does."""
    begin = start + len(text[start:]) - len(text[start:].lstrip())
    try:
        return json.JSONDecoder(strict=False).raw_decode(text, begin)[1]
    except (ValueError, RecursionError):
        return len(text)
