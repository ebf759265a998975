"""The experts of a pool as LangChain tools for any graph: `ToolNode`, `create_agent`, sub-agents,
nodes written by hand, asynchronous or not.

A call does what a query of the consult graph does: the coin before the call, the limits on queries,
time and money, retries, stored replies, the ledger, redaction. What the policy reads is the reply
or a notice, never an exception's words. The consultation is kept for the rollout, if there is one,
and rides on the tool message as its artifact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from langchain_core.tools import BaseTool, Tool
from langgraph.config import get_stream_writer
from pydantic import PrivateAttr

from eapo_agents.errors import BudgetError, EapoError
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.consulting import (
    ASKING,
    REPLIED,
    UNAVAILABLE,
    WRITING,
    Askable,
    Consulting,
    Query,
    artifact_of,
    consult,
    current_consulting,
    particulars,
    query_text,
)
from eapo_agents.experts.listening import listening
from eapo_agents.policy.recording import TurnRecord, current_recorder
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.threads import LoopThread

T = TypeVar("T")
ALWAYS = AcceptanceSchedule(kind="constant")
"""Every reply is accepted, unless a rollout says otherwise."""
_call_id: ContextVar[str | None] = ContextVar("eapo_tool_call", default=None)


class ExpertTool(BaseTool):
    """One expert of a pool, or what its routing offers, as a tool."""

    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    _pool: Askable = PrivateAttr()
    _acceptance: AcceptanceSchedule = PrivateAttr()
    _max_queries: int | None = PrivateAttr()
    _siblings: frozenset[str] = PrivateAttr()

    @classmethod
    def of(
        cls,
        tool: BaseTool,
        pool: Askable,
        *,
        acceptance: AcceptanceSchedule = ALWAYS,
        max_queries: int | None = None,
        siblings: frozenset[str],
    ) -> ExpertTool:
        """Return a tool that looks as `tool` does, and asks the pool.

        Args:
            acceptance: when its replies are accepted.
            max_queries: K, the most queries that one turn may send; None is no limit.
            siblings: names of the pool's tools, which share K.
        """
        made = cls(
            name=tool.name,
            description=tool.description,
            args_schema=_schema_of(tool),
            return_direct=tool.return_direct,
            tags=tool.tags,
            metadata=tool.metadata,
        )
        made._pool, made._acceptance = pool, acceptance
        made._max_queries, made._siblings = max_queries, siblings
        return made

    def run(self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **more: Any) -> Any:
        """Run the tool, knowing which call this is."""
        token = _call_id.set(tool_call_id)
        try:
            return super().run(tool_input, *args, tool_call_id=tool_call_id, **more)
        finally:
            _call_id.reset(token)

    async def arun(
        self, tool_input: Any, *args: Any, tool_call_id: str | None = None, **more: Any
    ) -> Any:
        """Run the tool, knowing which call this is."""
        token = _call_id.set(tool_call_id)
        try:
            return await super().arun(tool_input, *args, tool_call_id=tool_call_id, **more)
        finally:
            _call_id.reset(token)

    def _to_args_and_kwargs(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # as they were written: what does not fit is a notice to the policy, and not an exception
        return (tool_input,), {}

    def _run(self, arguments: Mapping[str, object] | str) -> tuple[str, dict[str, object]]:
        return BLOCKING.run(lambda: self._ask(arguments))

    async def _arun(self, arguments: Mapping[str, object] | str) -> tuple[str, dict[str, object]]:
        return await self._ask(arguments)

    async def _ask(self, given: Mapping[str, object] | str) -> tuple[str, dict[str, object]]:
        """Return what the policy reads, and the consultation as an artifact."""
        rollout = current_consulting()
        who = rollout or Consulting()
        arguments = _named(given, list(self.args))
        place = _place_of(self.name, arguments, _call_id.get(), self._siblings, who)
        rho, u = who.coin(self._acceptance, place.turn, place.name)
        site = CallSite(
            problem_id=who.problem_id,
            global_step=who.global_step,
            rollout=who.rollout,
            turn=place.num_before,
            slot=place.slot,
        )
        limit = self._max_queries
        query = Query(
            name=self.name,
            arguments=arguments,
            site=site,
            rho=rho,
            u=u,
            over_limit=limit is not None and place.rank >= limit,
            review=who.review,
        )
        tell = _stream()
        tell({"event": ASKING, **_asking(query)})

        def heard(text: str) -> None:
            tell({"event": WRITING, "slot": site.slot, "text": text})

        try:
            with listening(heard if who.watched else None):
                consultation, answer = await consult(self._pool, query)
        except EapoError as error:  # a node may catch it: the rollout must end all the same
            who.failure = who.failure or error
            if rollout is None or not isinstance(error, BudgetError):
                raise
            # as a notice, so that the turn's other queries, which are paid for, still end
            return UNAVAILABLE, {}
        if rollout is not None:
            rollout.keep(place.turn, consultation, of_call=place.of_call)
        artifact = artifact_of(consultation)
        tell({"event": REPLIED, **artifact, **particulars(answer)})
        return consultation.reply, artifact


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where in a rollout a query stands."""

    turn: str
    """Id of the turn that wrote it, or of the latest one; empty before the first."""
    name: str
    """Tells it apart from the turn's other queries, in the coin."""
    slot: int
    rank: int
    """Queries to the pool that the turn wrote before it."""
    num_before: int
    """Turns before this one in its conversation."""
    of_call: bool
    """Whether the turn wrote it."""


def _place_of(
    name: str,
    arguments: Mapping[str, object] | str,
    call_id: str | None,
    siblings: frozenset[str],
    who: Consulting,
) -> _Place:
    """Find the call that a query answers: by its id, or by what was written where a node hands on
    the arguments alone. A query that the policy did not write belongs to the latest turn."""
    recorder = current_recorder()
    records = {record.id: record for record in recorder.records} if recorder else {}
    turn, slot = _of_call_id(call_id)
    if turn and not records:  # outside of a rollout, as in a conversation
        return _Place(turn=turn, name=str(slot), slot=slot, rank=slot, num_before=0, of_call=True)
    if turn not in records:
        turn, slot = _as_written(name, arguments, records, who)
    if turn in records:
        rank = sum(called in siblings for called, _ in records[turn].calls[:slot])
        before = _num_before(turn, records)
        return _Place(
            turn=turn, name=str(slot), slot=slot, rank=rank, num_before=before, of_call=True
        )
    latest = next(reversed(records), "")
    kind = json.dumps([latest, name, arguments], sort_keys=True, default=str)
    number = who.next_of_kind(kind)
    return _Place(
        turn=latest,
        name=f"{kind}/{number}",
        slot=0,
        rank=0,
        num_before=max(0, len(records) - 1),
        of_call=False,
    )


def _of_call_id(call_id: str | None) -> tuple[str, int]:
    """Return (turn id, slot) of a call that our chat model named; ("", 0) for any other."""
    found = re.fullmatch(r"call_(\w+)_(\d{1,6})", call_id or "")
    return (found[1], int(found[2])) if found else ("", 0)


def _as_written(
    name: str,
    arguments: Mapping[str, object] | str,
    records: Mapping[str, TurnRecord],
    who: Consulting,
) -> tuple[str, int]:
    """Return (turn id, slot) of the latest call with this name and these arguments that has not
    been asked yet; ("", 0) without one."""
    for record in reversed(list(records.values())):
        alike = [slot for slot, call in enumerate(record.calls) if call == (name, arguments)]
        if alike:
            number = who.next_of_kind(json.dumps([record.id, alike[0]]))
            return (record.id, alike[number]) if number < len(alike) else ("", 0)
    return "", 0


def _num_before(turn: str, records: Mapping[str, TurnRecord]) -> int:
    count = 0
    while (parent := records[turn].parent) is not None and parent in records:
        turn, count = parent, count + 1
    return count


def _named(given: Mapping[str, object] | str, names: Sequence[str]) -> Mapping[str, object] | str:
    """Return arguments by name: a tool of one argument may be called with its value alone."""
    if isinstance(given, str):
        return {names[0]: given} if len(names) == 1 else given
    return given


def _asking(query: Query) -> dict[str, object]:
    return {
        "slot": query.site.slot,
        "expert": query.name,
        "query": query_text(query.arguments),
    }


def _stream() -> Callable[[dict[str, object]], None]:
    """Return the graph's writer of the stream `custom`; outside of a graph nobody listens."""
    try:
        return get_stream_writer()
    except (RuntimeError, KeyError):
        return lambda event: None


def _schema_of(tool: BaseTool) -> Any:
    """Return the arguments as the policy is told them, and as `ExpertPool.refusal` checks them."""
    if isinstance(tool, Tool) and tool.args_schema is None:  # LangChain would tell another name
        return {"type": "object", "properties": dict(tool.args), "required": list(tool.args)}
    return tool.args_schema if tool.args_schema is not None else tool.tool_call_schema


BLOCKING = LoopThread()
"""Where all blocking callers ask: experts' places and rate limits are per loop."""
