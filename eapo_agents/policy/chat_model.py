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
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, SkipValidation

from eapo_agents.errors import EngineError, UsageError
from eapo_agents.policy.chat_arguments import sampling_of
from eapo_agents.policy.chat_messages import last_piece, message_of, piece_of, sure_text
from eapo_agents.policy.engine import Engine, RolloutKey
from eapo_agents.policy.formats import InvalidCall
from eapo_agents.policy.recording import (
    Recorder,
    TurnRecord,
    continued_turns,
    current_recorder,
    digests,
    recorder_of,
    said_until,
    turn_id,
)
from eapo_agents.policy.rendering import ChatRenderer
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
    system_prompt: str = ""
    """Begins a conversation that has no system message, as those of LangGraph Studio have none."""
    streaming: bool = False
    """Whether LangChain streams each turn to its callbacks, whoever asks for it."""
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
        """Ask for a call of this form and read it: by a call whatever the `method`, and `strict` or
        not, since nothing forces what a policy writes.

        Raises:
            OutputParserException: when run, if the policy wrote no such call. With `include_raw`
                the result says so instead.
        """
        chain = super().with_structured_output(schema, include_raw=include_raw, **kwargs)
        return chain if include_raw else chain | _refuse_nothing

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

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        with suppress(ValueError):  # refused where it is run
            sampling = sampling_of(
                self.sampling,
                {n: v for n, v in kwargs.items() if n in ("temperature", "max_tokens")},
                None,
            )
            return LangSmithParams(
                ls_provider="eapo",
                ls_model_name=self.engine.policy_version.model,
                ls_model_type="chat",
                ls_temperature=sampling.temperature,
                ls_max_tokens=sampling.max_new_tokens,
                **({"ls_stop": stop} if stop else {}),
            )
        return super()._get_ls_params(stop=stop, **kwargs)

    def get_token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text by the policy's own tokenizer."""
        return self.renderer.encode_text(text)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        metadata = run_manager.metadata if run_manager else None
        message = await self._turn(messages, stop, None, metadata=metadata, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

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

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        outcome: list[ChatResult | BaseException] = []
        metadata = run_manager.metadata if run_manager else None

        def run() -> None:
            try:
                turn = self._turn(messages, stop, None, metadata=metadata, **kwargs)
                message = asyncio.run(turn)
                outcome.append(ChatResult(generations=[ChatGeneration(message=message)]))
            except BaseException as error:  # handed to the caller's thread
                outcome.append(error)

        # a separate thread: the caller may be inside a running event loop
        thread = threading.Thread(target=copy_context().run, args=(run,))
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        pieces: queue.SimpleQueue[ChatGenerationChunk | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        async def tell() -> None:
            async with aclosing(self._astream(messages, stop, None, **kwargs)) as stream:  # type: ignore[type-var]
                async for piece in stream:
                    pieces.put(piece)
                    if left.is_set():
                        return

        def run() -> None:
            try:
                asyncio.run(tell())
                pieces.put(None)
            except BaseException as error:  # handed to the caller's thread
                pieces.put(error)

        threading.Thread(target=copy_context().run, args=(run,)).start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            left.set()

    async def _turn(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        on_token: Callable[[int], None] | None,
        *,
        metadata: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] = (),
        rollout_key: RolloutKey | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Sample a turn and record it: streamed or not, it is the same."""
        sampling = sampling_of(self.sampling, kwargs, stop)
        _refuse_all_but_text(messages)
        messages = self._begun(messages)
        said = digests(messages, tools)
        recorder = recorder_of(messages, metadata, self.engine.policy_version.base)
        prompt = self._prompt(messages, tools, said, recorder.records if recorder else None)
        turn = sum(message.type == "ai" for message in messages)
        if recorder is None:
            key = rollout_key or _key_outside(turn)
            record_id = turn_id(key, said[-1])
        else:
            key, record_id = recorder.begin(rollout_key, said[-1], turn, sampling)
        try:
            completion = await self.engine.generate(prompt.ids, sampling, key, on_token=on_token)
            text = self.renderer.decode(completion.completion_ids)
            in_thought = self.renderer.in_thought(prompt.ids)
            parsed = self.renderer.parse(text, in_thought=in_thought, tools=tools)
            message = message_of(parsed, completion, record_id, num_prompt=len(prompt.ids))
            record = TurnRecord(
                id=record_id,
                parent=prompt.parent,
                context_ids=tuple(prompt.ids[prompt.num_of_parent :]),
                completion_ids=tuple(completion.completion_ids),
                logprobs=None if completion.logprobs is None else tuple(completion.logprobs),
                text=text,
                calls=tuple(
                    ("", {}) if isinstance(call, InvalidCall) else (call.name, call.arguments)
                    for call in parsed.calls
                ),
                finish_reason=completion.finish_reason,
                policy=completion.policy,
                sampling=sampling,
                history=said_until(said[-1], message),
            )
            record.write(message)
            if recorder is not None:
                if not self.allow_midrollout_updates:
                    _refuse_change(recorder.records, completion.policy)
                recorder.records.append(record)
            return message
        finally:
            if recorder is not None:
                recorder.ended()

    def _begun(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        if not self.system_prompt or any(message.type == "system" for message in messages):
            return list(messages)
        return [SystemMessage(self.system_prompt), *messages]

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


def _refuse_all_but_text(messages: Sequence[BaseMessage]) -> None:
    """Raise UsageError for pictures, sound and files, which the policy would not be shown."""
    for message in messages:
        for block in message.content if isinstance(message.content, list) else ():
            kind = str(block.get("type", "")) if isinstance(block, dict) else ""
            if kind.startswith(("image", "audio", "input_audio", "video", "file", "media")):
                raise UsageError(
                    f"The policy reads text, and a message of type '{message.type}' has a part of "
                    f"type '{kind}': put what it shows into words."
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


def _left_before_its_end(turn: asyncio.Task[AIMessage], recorder: Recorder | None) -> None:
    """End a turn that nobody reads on. Where some of it was read, its run is without a turn that
    was used."""
    turn.cancel()
    if recorder is not None:
        recorder.fail(
            "A streamed turn of the policy was left before its end, and what was read of it would "
            "be missing in the trace: read the stream to its end, or use invoke."
        )
