"""A conversation as a file for others: Markdown to read, JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli.output import safe_text
from eapo_agents.errors import StoreError, UsageError
from eapo_agents.files import write_atomically

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from eapo_agents.types import PolicyVersion, Sampling

FORMAT = 1
_CONSULTATION = (
    "expert",
    "query",
    "status",
    "rho",
    "u",
    "latency_s",
    "tokens",
    "cost_usd",
    "error",
)


def export(
    file: Path,
    messages: Sequence[BaseMessage],
    *,
    thread: str,
    policy: PolicyVersion,
    sampling: Sampling,
) -> None:
    """Write a conversation to a new .md or .json file.

    Raises:
        UsageError: another ending, a file that exists, or nothing to write.
        StoreError: the file cannot be written.
    """
    rule = "/export takes a new .md or .json file, such as /export talk.md"
    if file.suffix not in (".md", ".json"):
        raise UsageError(f"{rule}, got '{file}'.")
    if file.exists():
        raise UsageError(f"{rule}, and '{file}' exists: give another name.")
    if not messages:
        raise UsageError("Nothing has been said in this thread yet: ask something first.")
    facts = _facts(messages, thread, policy, sampling)
    text = _markdown(facts) if file.suffix == ".md" else json.dumps(facts, indent=2)
    try:
        write_atomically(file, text + "\n")
    except OSError as error:
        raise StoreError(f"'{file}' cannot be written: {error.strerror or error}.") from error


def _facts(
    messages: Sequence[BaseMessage], thread: str, policy: PolicyVersion, sampling: Sampling
) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "format": FORMAT,
        "thread": thread,
        "exported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "policy": asdict(policy),
        "sampling": asdict(sampling),
        "messages": [_message(message) for message in messages],
    }


def _message(message: BaseMessage) -> dict[str, object]:
    roles = {"human": "user", "ai": "assistant"}
    found: dict[str, object] = {
        "role": roles.get(message.type, message.type),
        "content": safe_text(str(message.text)),
    }
    calls = getattr(message, "tool_calls", ())
    if calls:
        found["calls"] = [
            {"name": call["name"], "arguments": _safe(call["args"])} for call in calls
        ]
    if message.type == "tool":
        found["name"] = message.name
        artifact = getattr(message, "artifact", None)
        if isinstance(artifact, Mapping) and "status" in artifact:
            found["consultation"] = {name: _safe(artifact.get(name)) for name in _CONSULTATION}
    return found


def _safe(value: object) -> object:
    if isinstance(value, str):
        return safe_text(value)
    if isinstance(value, Mapping):
        return {safe_text(str(name)): _safe(one) for name, one in value.items()}
    return [_safe(one) for one in value] if isinstance(value, list) else value


def _markdown(facts: Mapping[str, object]) -> str:
    policy, sampling, messages = facts["policy"], facts["sampling"], facts["messages"]
    assert isinstance(policy, dict)
    assert isinstance(sampling, dict)
    assert isinstance(messages, list)
    parts = [
        f"# Conversation {facts['thread']}",
        f"{policy['model']}, step {policy['step']}, temperature {sampling['temperature']:g}. "
        f"Exported {facts['exported_at']}.",
    ]
    for message in messages:
        parts += _markdown_of(message)
    return "\n\n".join(parts)


def _markdown_of(message: Mapping[str, object]) -> list[str]:
    text = str(message["content"]).strip()
    consulted = message.get("consultation")
    if isinstance(consulted, dict):
        why = f", {consulted['error']}" if consulted["error"] else ""
        head = f"**{_inline(consulted['expert'])}** ({consulted['status']}{_inline(why)})"
        return [
            f"{head}, asked:",
            _quoted(str(consulted["query"])),
            "The policy read:",
            _quoted(text),
        ]
    parts = [f"## {str(message['role']).capitalize()}"]
    # as code, so that nothing in it is a heading or HTML of this page
    return [*parts, text if message["role"] == "assistant" and _harmless(text) else _quoted(text)]


def _harmless(text: str) -> bool:
    return bool(text) and not re.search(r"^\s{0,3}(#|<|=+\s*$|-+\s*$)|<[a-zA-Z!/]", text, re.M)


def _quoted(text: str) -> str:
    """Return a text as a block of code, fenced by more ticks than it has."""
    longest = max((len(ticks) for ticks in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _inline(text: object) -> str:
    return re.sub(r"([\\`*_\[\]<>])", r"\\\1", str(text)).replace("\n", " ")
