"""Answers requests of the endpoint: the policy's turns, and the experts that it asks in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    message_chunk_to_message,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from eapo_agents.experts.consulting import consulting
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.policy.recording import recording_on
from graphs.endpoint.replies import Choice, Heading
from graphs.endpoint.requests import ChatRequest, RequestError, messages_of
from graphs.endpoint.sessions import Session, Sessions


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """The policy behind the endpoint."""

    policy: RecordedChatModel
    sessions: Sessions
    experts: Mapping[str, BaseTool]
    """Offered beside the client's tools. The client does not see that they are asked."""
    max_turns: int
    """Turns that one answer may take; in the last one, nobody is asked."""

    def session_of(
        self, request: ChatRequest, name: str | None, problem_id: str | None
    ) -> tuple[Session, list[BaseMessage]]:
        """Return the session of a request, and its messages.

        Raises:
            RequestError: the session has ended, a message cannot be read, or a tool of the
                client's is called as an expert is.
        """
        taken = [
            t["function"]["name"] for t in request.offered if t["function"]["name"] in self.experts
        ]
        if taken:
            raise RequestError(
                f"'{taken[0]}' is an expert of the recipe too: give the tool another name."
            )
        messages = messages_of(request)
        return self.sessions.find(messages, name, problem_id), messages

    async def choices(
        self, session: Session, request: ChatRequest, messages: Sequence[BaseMessage]
    ) -> list[Choice]:
        """Return `n` answers, independent of each other."""
        with self._answering(session):
            found = await asyncio.gather(
                *(self._choice(session, request, messages, i) for i in range(request.n or 1))
            )
            self._keep(session, messages, found)
            return found

    async def stream(
        self,
        session: Session,
        request: ChatRequest,
        messages: Sequence[BaseMessage],
        heading: Heading,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the pieces of an answer as it is sampled. With several answers, or with experts,
        who may be asked before it, they come when the answer is whole."""
        pieces: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        async def make() -> None:
            try:
                await self._put_pieces(pieces.put_nowait, session, request, messages, heading)
            finally:
                pieces.put_nowait(None)

        # A task of its own: whose session it is is known by the context, and whoever reads the
        # pieces, or stops reading, may be in another.
        making = asyncio.create_task(make())
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            await making
        finally:
            making.cancel()

    async def _put_pieces(
        self,
        put: Callable[[dict[str, Any]], None],
        session: Session,
        request: ChatRequest,
        messages: Sequence[BaseMessage],
        heading: Heading,
    ) -> None:
        num_choices = request.n or 1
        for index in range(num_choices):
            put(heading.piece(index, {"role": "assistant", "content": ""}))
        said = ""
        if self.experts or num_choices > 1:
            choices = await self.choices(session, request, messages)
        else:
            with self._answering(session):
                parts: list[AIMessageChunk] = []
                before = session.in_our_words(messages)
                stream = self._bound(request).astream(before, rollout_key=_key(request, before, 0))
                async for part in stream:
                    parts.append(part)
                    if part.chunk_position != "last" and (text := str(part.content)):
                        said += text
                        put(heading.piece(0, {"content": text}))
                turn = message_chunk_to_message(add_ai_message_chunks(*parts))
                assert isinstance(turn, AIMessage)
                choices = [_shown([turn], frozenset())]
                self._keep(session, messages, choices)
        for index, choice in enumerate(choices):
            for rest in heading.rest(index, choice, said):
                put(rest)
        if request.stream_options is not None and request.stream_options.include_usage:
            put(heading.usage(choices))

    def _keep(
        self, session: Session, messages: Sequence[BaseMessage], choices: Sequence[Choice]
    ) -> None:
        for choice in choices:
            self.sessions.said(session, session.keep(messages, choice.shown, choice.ours))

    @contextmanager
    def _answering(self, session: Session) -> Iterator[None]:
        session.num_busy += 1
        try:
            with recording_on(session.recorder), consulting(session.who):
                yield
        finally:
            session.num_busy = max(0, session.num_busy - 1)
            session.touched = time.monotonic()

    def _bound(self, request: ChatRequest) -> Any:
        offered = [
            *request.offered,
            *(convert_to_openai_tool(tool) for tool in self.experts.values()),
        ]
        return self.policy.bind(tools=offered, **request.arguments)

    async def _choice(
        self, session: Session, request: ChatRequest, messages: Sequence[BaseMessage], index: int
    ) -> Choice:
        bound = self._bound(request)
        before = session.in_our_words(messages)
        ours: list[BaseMessage] = []
        for number in range(self.max_turns):
            key = _key(request, [*before, *ours], index)
            turn: AIMessage = await bound.ainvoke([*before, *ours], rollout_key=key)
            ours.append(turn)
            asked = [call for call in turn.tool_calls if call["name"] in self.experts]
            if not asked or number == self.max_turns - 1:
                break
            ours += await asyncio.gather(
                *(self.experts[call["name"]].ainvoke(call) for call in asked)
            )
            if session.who.failure is not None:
                raise session.who.failure
            if len(asked) < len(turn.tool_calls):
                break  # the client replies to the rest
        return _shown(ours, frozenset(self.experts))


def _key(request: ChatRequest, messages: Sequence[BaseMessage], index: int) -> RolloutKey | None:
    """Return what a client's own seed names: the same for the same conversation, in any session."""
    if request.seed is None:
        return None
    turn = sum(message.type == "ai" for message in messages)
    return RolloutKey(seed=request.seed, problem_id="", step=0, rollout=index, turn=turn)


def _shown(ours: Sequence[BaseMessage], experts: frozenset[str]) -> Choice:
    """Return what a client sees of the turns that answer it: the last one without calls of experts.
    A call that cannot be read is text."""
    turn = next(message for message in reversed(ours) if isinstance(message, AIMessage))
    calls = [call for call in turn.tool_calls if call["name"] not in experts]
    unread = [str(call["args"]) for call in turn.invalid_tool_calls]
    content = "\n".join(filter(None, [str(turn.text), *unread]))
    asks_on = len(calls) < len(turn.tool_calls) and ours[-1] is turn
    cut_off = turn.response_metadata.get("finish_reason") == "length"
    finish = "tool_calls" if calls else "length" if cut_off or asks_on else "stop"
    return Choice(ours=ours, shown=AIMessage(content, tool_calls=calls), finish_reason=finish)
