"""The policy as a LangChain chat model that keeps tokens: token in, token out.

Every `AIMessage` carries a `TurnRecord`: what was put before the completion, what was sampled, its
logprobs, the weights' version. The prompt of the next turn is made of those records and of the
rendering of what came after, never of a new rendering of the conversation. Where somebody rewrote
the history, the record no longer fits; then the conversation is rendered again and a new row
begins. Nothing is repaired, and nothing is guessed.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    ToolCall,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, SkipValidation

from eapo_agents.errors import EngineError
from eapo_agents.policy.engine import Completion, Engine, RolloutKey
from eapo_agents.policy.recording import (
    TurnRecord,
    continued_turns,
    current_recorder,
    digests,
    said_until,
    turn_id,
)
from eapo_agents.policy.rendering import ChatRenderer
from eapo_agents.policy.tool_calls import InvalidCall, parse_turn
from eapo_agents.types import PolicyVersion, Sampling

_NO_ROLLOUT = RolloutKey(seed=0, problem_id="", step=0, rollout=0, turn=0)


class PolicyChatModel(BaseChatModel):
    """A LangChain chat model over an `Engine`, with the tokens kept."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    engine: SkipValidation[Engine]
    renderer: SkipValidation[ChatRenderer]
    """Of the engine's tokenizer."""
    sampling: Sampling
    allow_midrollout_updates: bool = False
    """Whether the weights may change in the middle of a recorded run."""
    cache: Literal[False] = False
    """Sampled turns are never taken from LangChain's cache: its key does not name the weights, and
    a rollout is a sample of its own."""

    @property
    def _llm_type(self) -> str:
        return "eapo-policy"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools. A `tool_choice` is a request: a sampled policy cannot be forced, and
        whoever asked for a call has to expect an answer without one.

        Raises:
            ValueError: the choice is "none", or names a tool that is not offered.
        """
        offered = [convert_to_openai_tool(tool) for tool in tools]
        names = [tool["function"]["name"] for tool in offered]
        if tool_choice not in (None, "auto", "any", "required", *names):
            raise ValueError(
                "tool_choice must be 'auto', 'any', 'required' or the name of an offered tool "
                f"({', '.join(names)}), got '{tool_choice}'."
            )
        return self.bind(tools=offered, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Ask for a call of this form and read it.

        Raises:
            OutputParserException: when run, if the policy wrote no such call. With `include_raw`
                the result says so instead.
        """
        chain = super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return chain if include_raw else chain | _refuse_nothing

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text by the policy's own tokenizer."""
        return self.renderer.encode_text(text)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[Mapping[str, object]] = (),
        rollout_key: RolloutKey | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if stop:
            raise ValueError(
                "Stop strings would cut between tokens: the policy ends its turns itself."
            )
        _refuse_unknown(kwargs)
        said = digests(messages, tools)
        recorder = current_recorder()
        prompt = self._prompt(messages, tools, said, recorder.records if recorder else None)
        turn = sum(message.type == "ai" for message in messages)
        key = rollout_key or (recorder.next_key() if recorder else _key_outside(turn))
        record_id = recorder.next_id(key) if recorder else turn_id(key, said[-1])
        async with _streaming(run_manager, self.renderer) as on_token:
            completion = await self.engine.generate(
                prompt.ids, self.sampling, key, on_token=on_token
            )
        text = self.renderer.decode(completion.completion_ids)
        message = _message(completion, text, record_id, num_prompt=len(prompt.ids))
        record = TurnRecord(
            id=record_id,
            parent=prompt.parent,
            context_ids=tuple(prompt.ids[prompt.num_of_parent :]),
            completion_ids=tuple(completion.completion_ids),
            logprobs=None if completion.logprobs is None else tuple(completion.logprobs),
            text=text,
            finish_reason=completion.finish_reason,
            policy=completion.policy,
            sampling=self.sampling,
            history=said_until(said[-1], message),
        )
        record.write(message)
        if recorder is not None:
            if not self.allow_midrollout_updates:
                _refuse_change(recorder.records, completion.policy)
            recorder.records.append(record)
        if run_manager is not None:
            message.id = f"run-{run_manager.run_id}"  # the id that the streamed pieces have
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        outcome: list[ChatResult | BaseException] = []

        def run() -> None:
            try:
                outcome.append(asyncio.run(self._agenerate(messages, stop, None, **kwargs)))
            except BaseException as error:  # handed to the caller's thread
                outcome.append(error)

        # a separate thread: the caller may be inside a running event loop
        thread = threading.Thread(target=copy_context().run, args=(run,))
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _prompt(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, object]],
        said: Sequence[str],
        recorded: Sequence[TurnRecord] | None,
    ) -> _Prompt:
        base = self.engine.policy_version.base
        line, covered = continued_turns(messages, said, base, recorded or ())
        if not line:
            return _Prompt(ids=self.renderer.prompt(messages, tools))
        ids = [token for turn in line for token in (*turn.context_ids, *turn.completion_ids)]
        num_before = len(ids)
        closed = bool(ids) and ids[-1] in self.renderer.stop_ids
        ids += self.renderer.continuation(messages[covered:], turn_closed=closed)
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


def _message(completion: Completion, text: str, record_id: str, *, num_prompt: int) -> AIMessage:
    parsed = parse_turn(text)
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for slot, call in enumerate(parsed.calls):
        name = call_id(record_id, slot)
        if isinstance(call, InvalidCall):
            invalid.append(
                InvalidToolCall(
                    type="invalid_tool_call",
                    name=None,
                    args=call.text,
                    id=name,
                    error=call.reason,
                )
            )
        else:
            calls.append(ToolCall(type="tool_call", name=call.name, args=call.arguments, id=name))
    num_sampled = len(completion.completion_ids)
    return AIMessage(
        content=parsed.content,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        response_metadata={
            "finish_reason": completion.finish_reason,
            "model_name": completion.policy.model,
        },
        usage_metadata=UsageMetadata(
            input_tokens=num_prompt,
            output_tokens=num_sampled,
            total_tokens=num_prompt + num_sampled,
        ),
    )


_outside = itertools.count()


def _key_outside(turn: int) -> RolloutKey:
    """Name a completion outside of any rollout: each is a sample of its own, and a process that
    asks in the same order gets the same ones."""
    return replace(_NO_ROLLOUT, turn=turn, rollout=next(_outside))


def _refuse_nothing(found: dict[str, Any] | BaseModel | None) -> dict[str, Any] | BaseModel:
    if found is None:
        raise OutputParserException(
            "The policy wrote no call of the form that was asked for: ask again, or take "
            "include_raw=True to see what it wrote."
        )
    return found


# what LangChain itself adds to a call, without effect on what is sampled
_NOTES = {"ls_structured_output_format"}


def _refuse_unknown(arguments: Mapping[str, object]) -> None:
    """Raise ValueError for an argument that would change the sampling of another chat model."""
    unknown = sorted(set(arguments) - _NOTES)
    if unknown:
        raise ValueError(
            f"The policy does not take {', '.join(unknown)} with a call: its sampling is set by "
            "the recipe's section `sampling` (in Python: PolicyChatModel(sampling=...))."
        )


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


@asynccontextmanager
async def _streaming(
    run_manager: AsyncCallbackManagerForLLMRun | None, renderer: ChatRenderer
) -> AsyncIterator[Callable[[int], None] | None]:
    """Tells the callbacks the text as it is sampled; yields None where nobody listens."""
    if run_manager is None or not run_manager.handlers:
        yield None
        return
    loop = asyncio.get_running_loop()
    tokens: asyncio.Queue[int | None] = asyncio.Queue()
    telling = asyncio.create_task(_tell(tokens, run_manager, renderer))

    def on_token(token: int) -> None:
        with suppress(RuntimeError):  # the loop may have ended, and nobody listens
            loop.call_soon_threadsafe(tokens.put_nowait, token)

    try:
        yield on_token
        loop.call_soon(tokens.put_nowait, None)  # after the tokens that are on their way
        await telling
    finally:
        telling.cancel()


async def _tell(
    tokens: asyncio.Queue[int | None],
    run_manager: AsyncCallbackManagerForLLMRun,
    renderer: ChatRenderer,
) -> None:
    ids: list[int] = []
    told = ""
    while (token := await tokens.get()) is not None:
        ids.append(token)
        text = renderer.decode(ids)
        if text.endswith("\ufffd"):
            continue  # in the middle of a character
        piece, told = text[len(told) :], text
        if piece:
            chunk = AIMessageChunk(content=piece, id=f"run-{run_manager.run_id}")
            await run_manager.on_llm_new_token(piece, chunk=ChatGenerationChunk(message=chunk))


def call_id(record_id: str, slot: int) -> str:
    """Return the id of a turn's call: no two turns share one, and it tells the order in which the
    calls were written."""
    return f"call_{record_id}_{slot}"


def call_slot(tool_call_id: str) -> int:
    """Return the position of a call among its turn's calls, from its id."""
    return int(tool_call_id.rsplit("_", 1)[1])
