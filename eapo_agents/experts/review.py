"""What a person is asked in the middle of a run, in LangChain's form of a human in the loop.

The graph stops at an interrupt whose value is

    {"action_requests": [{"name": "solver", "args": {"query": "7 + 3"}, "description": "..."}],
     "review_configs": [{"action_name": "solver", "allowed_decisions": ["approve", "edit"]}]}

and continues with `{"decisions": [{"type": "approve"}]}`, one decision for each action. LangGraph
Studio, Agent Chat UI and `eapo chat` show the same request. A resume value that is not an allowed
decision does not end the run: the person is asked again, and told what was wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph.types import interrupt

from eapo_agents.secrets import redact

APPROVE, EDIT, REJECT, RESPOND = "approve", "edit", "reject", "respond"
OF_A_CALL = (APPROVE, EDIT, REJECT)
"""What a person may decide about a call to another expert."""
OF_A_PERSON = (RESPOND, REJECT)
"""What a person may do who is the expert."""
REFUSED = "A person refused it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A call that waits for a person."""

    name: str
    arguments: Mapping[str, object]
    description: str = ""
    allowed: tuple[str, ...] = OF_A_CALL
    """Decisions that a person may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person decided about a call."""

    type: str
    message: str = ""
    """The reply of `respond`, or the reason of `reject`."""
    edited: Action | None = None
    """The call that takes its place, of `edit`."""

    def form(self) -> dict[str, object]:
        """Return it in LangChain's form."""
        found: dict[str, object] = {"type": self.type}
        if self.edited is not None:
            arguments = dict(self.edited.arguments)
            found["edited_action"] = {"name": self.edited.name, "args": arguments}
        if self.message or self.type == RESPOND:
            found["message"] = self.message
        return found


def decide(action: Action, fault_of: Callable[[Action], str | None]) -> Decision:
    """Ask a person about a call; the node is run again from its beginning when they have decided.

    Args:
        fault_of: why an edited call cannot be sent; None if it can.
    """
    fault = ""
    while True:
        told = f"{fault} {action.description}".strip()
        found = _read(interrupt(request([action], told)), action)
        if isinstance(found, Decision):
            fault = (fault_of(found.edited) or "") if found.edited is not None else ""
            if not fault:
                return found
        else:
            fault = found


def request(actions: Sequence[Action], description: str = "") -> dict[str, object]:
    """Return the value of the interrupt that asks about some calls."""
    return {
        "action_requests": [
            {
                "name": action.name,
                "args": dict(action.arguments),
                "description": description or action.description,
            }
            for action in actions
        ],
        "review_configs": [
            {"action_name": action.name, "allowed_decisions": list(action.allowed)}
            for action in actions
        ],
    }


def actions_in(value: object) -> tuple[Action, ...]:
    """Return the calls that an interrupt asks about, in any graph; none if it has another form."""
    if not isinstance(value, Mapping):
        return ()
    requests, configs = value.get("action_requests"), value.get("review_configs")
    if not isinstance(requests, list) or not isinstance(configs, list):
        return ()
    allowed = {
        one.get("action_name"): tuple(map(str, one.get("allowed_decisions", ())))
        for one in configs
        if isinstance(one, Mapping)
    }
    found = []
    for one in requests:
        if not isinstance(one, Mapping) or not isinstance(one.get("args"), Mapping):
            return ()
        found.append(
            Action(
                name=str(one.get("name")),
                arguments=one["args"],
                description=str(one.get("description") or ""),
                allowed=allowed.get(one.get("name"), OF_A_CALL),
            )
        )
    return tuple(found)


def refused_because(message: str) -> str:
    """Return the reason of a refused call, as records have it."""
    return redact(f"{REFUSED}: {message.strip()}") if message.strip() else f"{REFUSED}."


def _read(value: Any, action: Action) -> Decision | str:  # whatever a client sends
    """Return the decision in a resume value, or what is wrong with it, as a sentence."""
    one = value.get("decisions", value) if isinstance(value, Mapping) else value
    if isinstance(one, list):
        if len(one) != 1:
            return f"One call waits for one decision, got {len(one)}."
        one = one[0]
    if isinstance(one, str) and RESPOND in action.allowed:
        return Decision(type=RESPOND, message=one)
    kind = one.get("type") if isinstance(one, Mapping) else None
    if not isinstance(one, Mapping) or kind not in action.allowed:
        given = repr(kind if isinstance(one, Mapping) else one)
        return f"A decision is {' or '.join(action.allowed)}, got {given[:100]}."
    message = str(one.get("message") or "")
    if kind != EDIT:
        return Decision(type=kind, message=message)
    edited = one.get("edited_action")
    if not isinstance(edited, Mapping) or not isinstance(edited.get("args"), Mapping):
        return "The decision edit needs edited_action with name and args."
    name = str(edited.get("name") or action.name)
    return Decision(type=EDIT, edited=Action(name=name, arguments=edited["args"]))
