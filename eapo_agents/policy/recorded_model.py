"""A policy as a LangChain chat model whose turns are recorded, whoever samples them: an engine
(`chat_model.py`) or the service of an API model (`api_model.py`)."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from abc import abstractmethod
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

from eapo_agents.errors import UsageError
from eapo_agents.policy.chat_arguments import sampling_of
from eapo_agents.policy.engine import Engine, RolloutKey
from eapo_agents.policy.recording import TurnRecord, digests, recorder_of, turn_id
from eapo_agents.types import Sampling

_NO_ROLLOUT = RolloutKey(seed=0, problem_id="", step=0, rollout=0, turn=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A turn that is to be sampled."""

    messages: Sequence[BaseMessage]
    tools: Sequence[Mapping[str, object]]
    tool_choice: str | None
    said: Sequence[str]
    """The conversation's digests."""
    sampling: Sampling
    key: RolloutKey
    id: str
    """Of the turn's record."""
    recorded: Sequence[TurnRecord] | None
    """What its run has sampled so far; None outside of a run."""


class RecordedChatModel(BaseChatModel):
    """A chat model over an `Engine`, each of whose turns is on record."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    engine: SkipValidation[Engine]
    sampling: Sampling
    system_prompt: str = ""
    """Begins a conversation that has no system message, as those of LangGraph Studio have none."""
    streaming: bool = False
    """Whether LangChain streams each turn to its callbacks, whoever asks for it."""
    cache: Literal[False] = False
    """Sampled turns are never taken from LangChain's cache: its key does not name the weights, and
    a rollout is a sample of its own."""

    @abstractmethod
    async def _sample(
        self, asked: Asked, on_token: Callable[[int], None] | None
    ) -> tuple[AIMessage, TurnRecord]:
        """Return the turn's message, and its record."""

    def _check(self, record: TurnRecord, before: Sequence[TurnRecord]) -> None:
        """Raise EapoError where a turn cannot follow what its run has sampled."""

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
        return self.bind(tools=offered, tool_choice=tool_choice, **kwargs)

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

    @abstractmethod
    def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Stream a turn."""

    async def _turn(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        on_token: Callable[[int], None] | None,
        *,
        metadata: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] = (),
        tool_choice: str | None = None,
        rollout_key: RolloutKey | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Sample a turn and record it: streamed or not, it is the same."""
        sampling = sampling_of(self.sampling, kwargs, stop)
        _refuse_all_but_text(messages)
        messages = self._begun(messages)
        said = digests(messages, tools)
        recorder = recorder_of(messages, metadata, self.engine.policy_version.base)
        turn = sum(message.type == "ai" for message in messages)
        if recorder is None:
            key = rollout_key or _key_outside(turn)
            record_id = turn_id(key, said[-1])
        else:
            key, record_id = recorder.begin(rollout_key, said[-1], turn, sampling)
        try:
            asked = Asked(
                messages=messages,
                tools=tools,
                tool_choice=tool_choice,
                said=said,
                sampling=sampling,
                key=key,
                id=record_id,
                recorded=recorder.records if recorder else None,
            )
            message, record = await self._sample(asked, on_token)
            record.write(message)
            if recorder is not None:
                self._check(record, recorder.records)
                recorder.records.append(record)
            return message
        finally:
            if recorder is not None:
                recorder.ended()

    def _begun(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        if not self.system_prompt or any(message.type == "system" for message in messages):
            return list(messages)
        return [SystemMessage(self.system_prompt), *messages]


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
