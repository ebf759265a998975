"""Calls whose arguments stand between tags: Qwen3-Coder, Qwen3.5, Nemotron, GLM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.policy.formats.base import (
    MAX_CALL_CHARS,
    Call,
    Format,
    ParsedCall,
    Span,
    dumps,
    invalid,
    json_calls,
    quoted,
)


@dataclass(frozen=True, kw_only=True)
class TaggedArguments(Format):
    """`OPEN name (key value)* CLOSE`, as regular expressions and as templates to write them."""

    as_text: bool = True
    opening: str
    """Pattern of how a block begins."""
    closing: str
    """Pattern of how a block ends."""
    head: str
    """Pattern of a call's name, as group `name`."""
    argument: str
    """Pattern of one argument, as groups `key` and `value`."""
    written: tuple[str, str, str]
    """How a call begins ({name}), how an argument is written ({key}, {value}), and its end."""
    block: tuple[str, str] = ("", "")
    """What all calls of a turn stand between."""

    def find(self, text: str, start: int) -> Span | None:
        for opening in re.compile(self.opening).finditer(text, start):
            if quoted(text, opening.start(), opening.end()):
                continue
            body_start = opening.end()
            closing = self._closing(text, body_start)
            end, after = closing.span() if closing else (len(text), len(text))
            body = text[body_start:end]
            if closing is None and not re.match(self.head, body):
                continue  # a tag with other words behind it is a mention
            return Span(start=opening.start(), end=after, calls=self._calls(body))
        return None

    def _closing(self, text: str, start: int) -> re.Match[str] | None:
        """Return the end of a block; one within an argument's value is not the end."""
        inside = 0
        argument = re.compile(rf"\s*(?:{self.argument})", re.DOTALL)
        head = re.compile(self.head).match(text, start)
        inside = head.end() if head else start
        while found := argument.match(text, inside):
            inside = found.end()
        return re.compile(self.closing).search(text, inside)

    def _calls(self, body: str) -> tuple[Call, ...]:
        if len(body) > MAX_CALL_CHARS:
            return (invalid(body[:200], "The tool call is too long."),)
        if body.lstrip().startswith(("{", "[")):
            return json_calls(body)  # Hermes' form, which these models fall into
        head = re.match(self.head, body)
        if head is None:
            return (invalid(body, f"The tool call has no name: write {self._example()}."),)
        arguments: dict[str, object] = {}
        position = head.end()
        argument = re.compile(rf"\s*(?:{self.argument})", re.DOTALL)
        while found := argument.match(body, position):
            if unclosed := _NEXT.search(found["value"]):
                reason = (
                    f"The parameter '{found['key'].strip()}' has no end before "
                    f"'{unclosed.group().strip()}': write {self._example()}."
                )
                return (invalid(body, reason),)
            arguments[found["key"].strip()] = found["value"]
            position = found.end()
        rest = re.sub(r"</function>|</atem:invoke>", "", body[position:]).strip()
        if rest:
            reason = f"The tool call cannot be read at '{rest[:40]}': write {self._example()}."
            return (invalid(body, reason),)
        return (ParsedCall(name=head["name"].strip(), arguments=arguments),)

    def _example(self) -> str:
        return " ".join(self.render([ParsedCall(name="name", arguments={"key": "value"})]).split())

    def render(self, calls: Sequence[ParsedCall]) -> str:
        begin, argument, end = self.written
        texts = []
        for call in calls:
            arguments = "".join(
                argument.format(key=key, value=value if isinstance(value, str) else dumps(value))
                for key, value in call.arguments.items()
            )
            texts.append(begin.format(name=call.name) + arguments + end)
        return self.block[0] + "\n".join(texts) + self.block[1]


_NEXT = re.compile(r"\n\s*<(?:parameter=[^>\n]+|arg_key)>")
"""Within a value: the next argument begins, and this one has not ended."""
_PARAMETER = (
    r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>"
    r"(?=\s*(?:<parameter=|</function>|</tool_call>|\Z))"
)
FUNCTION_XML = TaggedArguments(
    name="XML, as Qwen3-Coder, Qwen3.5 and Nemotron write it",
    marks=("<tool_call>", "</tool_call>"),
    signs=("<function=", "<parameter="),
    opening=r"<tool_call>(?=\s*<function=|\s*[{\[])|<function=(?=[^>\n]+>)",
    closing=r"</function>\s*</tool_call>|</tool_call>|</function>",
    head=r"\s*(?:<function=)?(?P<name>[^>\n]+)>",
    argument=_PARAMETER,
    written=(
        "<tool_call>\n<function={name}>\n",
        "<parameter={key}>\n{value}\n</parameter>\n",
        "</function>\n</tool_call>",
    ),
)
GLM = TaggedArguments(
    name="keys and values in tags, as GLM writes them",
    marks=("<tool_call>", "</tool_call>"),
    signs=("<arg_key>", "<arg_value>"),
    opening=r"<tool_call>(?=\s*[\w.{\[-])",
    closing=r"</tool_call>",
    head=r"\s*(?P<name>[^\s<]+)\s*(?=<arg_key>|</tool_call>|\Z)",
    argument=r"<arg_key>(?P<key>[^<]+)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>"
    r"(?=\s*(?:<arg_key>|</tool_call>|\Z))",
    written=(
        "<tool_call>{name}\n",
        "<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
        "</tool_call>",
    ),
)
