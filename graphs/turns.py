"""Turns out of messages and records: what a run of a graph left behind, as a trajectory has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from eapo_agents.errors import TraceError
from eapo_agents.experts.consulting import Consulting
from eapo_agents.policy.recording import TurnRecord, records_on
from eapo_agents.types import Consultation, ConsultationStatus, PolicyVersion, Sampling, Turn


def messages_in(state: object) -> list[BaseMessage]:
    """Return the messages of a graph's state, where it keeps some."""
    found = state.get("messages", ()) if isinstance(state, Mapping) else ()
    return [message for message in found if isinstance(message, BaseMessage)]


def turns_of(
    messages: Sequence[BaseMessage],
    records: Sequence[TurnRecord] | None = None,
    *,
    policy: PolicyVersion | None = None,
    sampling: Sampling | None = None,
    asked: Consulting | None = None,
) -> tuple[Turn, ...]:
    """Return the turns of a run: every completion of a policy of ours, in order.

    They are read off its messages. Where a graph drops or rewrites messages, `records` has what was
    recorded. Consultations ride on the tool messages that answer a turn's calls; `asked` has those
    of experts' tools, whatever became of the messages.

    Args:
        policy: the trajectory's own weights, those of the first turn by default.
        sampling: the trajectory's own sampling, likewise.

    Raises:
        TraceError: a turn continues one that is not among them, so that what the engine saw before
            it is not known.
    """
    records = records_on(messages) if records is None else records
    if not records:
        return ()
    policy = policy or records[0].policy
    sampling = sampling or records[0].sampling
    consulted = _consultations(messages)
    if asked is not None:
        consulted.update(asked.by_turn([record.id for record in records]))
    index_of = {record.id: index for index, record in enumerate(records)}
    return tuple(
        Turn(
            id=record.id,
            parent=_parent(record, index_of),
            context_ids=record.context_ids,
            completion_ids=record.completion_ids,
            logprobs=record.logprobs,
            text=record.text,
            finish_reason=record.finish_reason,
            consultations=tuple(consulted.get(record.id, ())),
            policy=None if record.policy == policy else record.policy,
            sampling=None if record.sampling == sampling else record.sampling,
            billed=record.billed,
        )
        for record in records
    )


def _parent(record: TurnRecord, index_of: Mapping[str, int]) -> int | None:
    if record.parent is None:
        return None
    if record.parent not in index_of:
        raise TraceError(
            f"Turn {record.id} continues turn {record.parent}, which this run does not have: what "
            "the engine saw before it is not known, so the run cannot be a trace."
        )
    return index_of[record.parent]


def _consultations(messages: Sequence[BaseMessage]) -> dict[str, list[Consultation]]:
    """Turn id -> its consultations, by the calls that the tool messages answer."""
    turn_of: dict[str, str] = {}
    found: dict[str, list[Consultation]] = {}
    for message in messages:
        record = TurnRecord.read(message)
        if isinstance(message, AIMessage) and record is not None:
            for call in (*message.tool_calls, *message.invalid_tool_calls):
                turn_of[str(call["id"])] = record.id
        elif isinstance(message, ToolMessage) and _is_consultation(message):
            turn = turn_of.get(message.tool_call_id)
            if turn is not None:
                found.setdefault(turn, []).append(_consultation(message.artifact))
    return found


def _is_consultation(message: ToolMessage) -> bool:
    return isinstance(message.artifact, Mapping) and "u" in message.artifact


def _consultation(artifact: Mapping[str, object]) -> Consultation:
    facts = {**artifact, "status": ConsultationStatus(str(artifact["status"]))}
    return Consultation(**facts)  # type: ignore[arg-type]  # as the consult graph wrote it
