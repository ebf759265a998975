"""What probes of a chat template and real conversations share: placeholders for contents, and how
templates write strings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from eapo_agents.policy.formats import Format, ParsedCall

Message = dict[str, object]
SLOT = re.compile(r"EAPOSLOT(\d+)X")
PLAIN_KEY = re.compile(r"[\w-]+")
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

Escape = Callable[[str], str]


def as_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _as_ascii(text: str) -> str:
    return json.dumps(text)[1:-1]


def _as_python(text: str) -> str:
    for plain, code in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, code)
    return text


ESCAPES: tuple[Escape, ...] = (str, as_json, _as_ascii, _as_python)
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


def short_id(identity: str) -> str:
    """Return a call's id as the strictest templates want it: nine letters and digits."""
    return hashlib.blake2b(identity.encode(errors="replace"), digest_size=5).hexdigest()[:9]


def probe_arguments(query: str, inner: str) -> dict[str, object]:
    return {"query": query, "options": {"of": [1, 2.5, True, inner]}, "number": 3}


def escapes_of(form: Format) -> tuple[Escape, Escape]:
    """Return how a form that we write ourselves writes strings."""
    told = form.render([ParsedCall(name="f", arguments=probe_arguments(TRICKY, TRICKY))])
    slots = form.render(
        [ParsedCall(name="f", arguments=probe_arguments("EAPOSLOT1X", "EAPOSLOT2X"))]
    )
    for top in ESCAPES:
        for deep in ESCAPES:
            written = slots.replace("EAPOSLOT1X", top(TRICKY))
            if written.replace("EAPOSLOT2X", deep(TRICKY)) == told:
                return top, deep
    raise AssertionError(f"{form.name} writes strings in a way that is not in ESCAPES")


def said(role: str, slot: int) -> Message:
    return {"role": role, "content": f"EAPOSLOT{slot}X"}


def reply(content: str, call: str) -> Message:
    facts = {"name": "eapo_probe", "tool_call_id": short_id(call)}
    return {"role": "tool", "content": content, **facts}


def in_parts(message: Message) -> Message:
    content = message["content"]
    if not isinstance(content, str):
        return message
    return {**message, "content": [{"type": "text", "text": content}]}
