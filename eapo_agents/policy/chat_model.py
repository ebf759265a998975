"""The policy as a LangChain chat model that keeps tokens: token in, token out.

Every `AIMessage` carries a `TurnRecord`: what was put before the completion, what was sampled, its
logprobs, the weights' version. The prompt of the next turn is made of those records and of the
rendering of what came after, never of a new rendering of the conversation. Where somebody rewrote
the history, the record no longer fits; then the conversation is rendered again and a new row
begins. Nothing is repaired, and nothing is guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import SkipValidation

from eapo_agents.errors import EngineError
from eapo_agents.policy.chat_messages import last_piece, message_of, piece_of, sure_text
from eapo_agents.policy.recorded_model import Asked, RecordedChatModel
from eapo_agents.policy.recording import (
    Recorder,
    TurnRecord,
    continued_turns,
    current_recorder,
    digests,
    said_until,
)
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.types import PolicyVersion


class PolicyChatModel(RecordedChatModel):
    """A LangChain chat model over an `Engine`, with the tokens kept."""

    renderer: SkipValidation[ChatRenderer]
    """Of the engine's tokenizer."""
    allow_midrollout_updates: bool = False
    """Whether the weights may change in the middle of a recorded run."""

    @property
    def _llm_type(self) -> str:
        return "eapo-policy"

    def get_num_tokens_from_messages(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool] | None = None,
    ) -> int:
        """Return the number of tokens that the policy would be given as a prompt."""
        if not messages:
            return 0
        offered = [convert_to_openai_tool(tool) for tool in tools or ()]
        recorder = current_recorder()
        messages = self._begun(messages)
        said = digests(messages, offered)
        return len(
            self._prompt(messages, offered, said, recorder.records if recorder else None).ids
        )

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text by the policy's own tokenizer."""
        return self.renderer.encode_text(text)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        loop = asyncio.get_running_loop()
        tokens: asyncio.Queue[int | None] = asyncio.Queue()

        def on_token(token: int) -> None:
            with suppress(RuntimeError):  # the loop may have ended, and nobody listens
                loop.call_soon_threadsafe(tokens.put_nowait, token)

        turn = asyncio.create_task(self._turn(messages, stop, on_token, **kwargs))
        turn.add_done_callback(lambda _: loop.call_soon(tokens.put_nowait, None))
        ids: list[int] = []
        said = ""
        try:
            while (token := await tokens.get()) is not None:
                ids.append(token)
                text = self.renderer.decode(ids)
                # a character may be half there
                half = text.endswith("\ufffd") or self.renderer.begins_unsaid
                sure = said if half else sure_text(text)
                if len(sure) > len(said):
                    piece, said = sure[len(said) :], sure
                    yield piece_of(piece)
            yield last_piece(await turn, said)
        finally:
            if not turn.done():
                _left_before_its_end(turn, current_recorder() if said else None)

    async def _sample(
        self, asked: Asked, on_token: Callable[[int], None] | None
    ) -> tuple[AIMessage, TurnRecord]:
        prompt = self._prompt(asked.messages, asked.tools, asked.said, asked.recorded)
        completion = await self.engine.generate(
            prompt.ids, asked.sampling, asked.key, on_token=on_token
        )
        text = self.renderer.decode(completion.completion_ids)
        in_thought = self.renderer.in_thought(prompt.ids)
        parsed = self.renderer.parse(text, in_thought=in_thought, tools=asked.tools)
        message = message_of(
            parsed,
            asked.id,
            finish_reason=completion.finish_reason,
            model=completion.policy.model,
            num_prompt=len(prompt.ids),
            num_sampled=len(completion.completion_ids),
        )
        return message, TurnRecord(
            id=asked.id,
            parent=prompt.parent,
            context_ids=tuple(prompt.ids[prompt.num_of_parent :]),
            completion_ids=tuple(completion.completion_ids),
            logprobs=None if completion.logprobs is None else tuple(completion.logprobs),
            text=text,
            calls=parsed.named,
            finish_reason=completion.finish_reason,
            policy=completion.policy,
            sampling=asked.sampling,
            history=said_until(asked.said[-1], message),
        )

    def _check(self, record: TurnRecord, before: Sequence[TurnRecord]) -> None:
        if not self.allow_midrollout_updates:
            _refuse_change(before, record.policy)

    def _prompt(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, object]],
        said: Sequence[str],
        recorded: Sequence[TurnRecord] | None,
    ) -> _Prompt:
        base = self.engine.policy_version.base
        line, covered = continued_turns(messages, said, base, recorded or ())
        more = messages[covered:]
        if not line or self.renderer.forgets([turn.text for turn in line], more):
            return _Prompt(ids=self.renderer.prompt(messages, tools))
        ids = [token for turn in line for token in (*turn.context_ids, *turn.completion_ids)]
        num_before = len(ids)
        closed_by = ids[-1] if ids and ids[-1] in self.renderer.stop_ids else None
        after = messages[covered - 1]
        ids += self.renderer.continuation(
            more, closed_by=closed_by, after=after if isinstance(after, AIMessage) else None
        )
        # a turn that this run did not sample (a message of its input, of another thread) cannot be
        # a parent in it: its tokens are context
        if recorded is not None and line[-1].id not in {record.id for record in recorded}:
            return _Prompt(ids=ids)
        return _Prompt(ids=ids, parent=line[-1].id, num_of_parent=num_before)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prompt:
    """What the engine is given."""

    ids: list[int]
    parent: str | None = None
    """Id of the record that it continues."""
    num_of_parent: int = 0
    """How many of the tokens that record and those before it hold."""


def _refuse_change(records: Sequence[TurnRecord], version: PolicyVersion) -> None:
    """Raise EngineError where this model sampled the run's earlier turns with other weights."""
    for record in records:
        before = record.policy
        if before.base == version.base and before.weights != version.weights:
            raise EngineError(
                f"The weights changed in the middle of a trajectory (step {before.step} to "
                f"{version.step}), and one trajectory is of one version: let rollouts end before "
                "new weights are published, or allow it with policy.allow_midrollout_updates=true."
            )


def _left_before_its_end(turn: asyncio.Task[AIMessage], recorder: Recorder | None) -> None:
    """End a turn that nobody reads on. Where some of it was read, its run is without a turn that
    was used."""
    turn.cancel()
    if recorder is not None:
        recorder.fail(
            "A streamed turn of the policy was left before its end, and what was read of it would "
            "be missing in the trace: read the stream to its end, or use invoke."
        )
