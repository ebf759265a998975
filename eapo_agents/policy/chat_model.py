"""The policy as a LangChain chat model that keeps tokens: token in, token out.

Every `AIMessage` carries a token record: what was put before the completion, what was sampled, its
logprobs, the weights' version. The prompt of the next turn is made of those records and of the
rendering of what came after, never of a new rendering of the conversation. Where somebody rewrote
the history, the record no longer fits; then the conversation is rendered anew and a new row begins.
Nothing is repaired.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import asdict, replace
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
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
from pydantic import ConfigDict

from eapo_agents.errors import EngineError
from eapo_agents.policy.engine import Completion, Engine, RolloutKey
from eapo_agents.policy.recording import current_recorder
from eapo_agents.policy.tool_calls import InvalidCall, parse_turn
from eapo_agents.types import PolicyVersion, Sampling

_NO_ROLLOUT = RolloutKey(seed=0, problem_id="", step=0, rollout=0, turn=0)
RECORD = "eapo"
"""Key of the token record in `AIMessage.additional_kwargs`."""


class PolicyChatModel(BaseChatModel):
    """A LangChain chat model over an `Engine`, with the tokens kept."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    engine: Any
    """An `Engine`."""
    renderer: Any
    """The `ChatRenderer` of the engine's tokenizer."""
    sampling: Sampling
    allow_midrollout_updates: bool = False
    """Whether the weights may change in the middle of a recorded run."""

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
        """Offers tools; `tool_choice` is refused, since a sampled policy cannot be forced."""
        if tool_choice not in (None, "auto"):
            raise ValueError(
                f"tool_choice must be 'auto' for a sampled policy, got '{tool_choice}'."
            )
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        rollout_key: RolloutKey | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if stop:
            raise ValueError(
                "Stop strings would cut between tokens: the policy ends its turns itself."
            )
        digests = _digests(messages, tools)
        prefix_ids, context_ids, parent = self._prompt(messages, tools, digests)
        engine: Engine = self.engine
        turn = sum(message.type == "ai" for message in messages)
        recorder = current_recorder()
        key = rollout_key or (recorder.next_key() if recorder else replace(_NO_ROLLOUT, turn=turn))
        async with _streaming(run_manager, self.renderer) as on_token:
            completion = await engine.generate(
                [*prefix_ids, *context_ids], self.sampling, key, on_token=on_token
            )
        num_prompt = len(prefix_ids) + len(context_ids)
        message = self._message(completion, turn=turn, num_prompt=num_prompt)
        message.additional_kwargs[RECORD] = {
            "context_ids": context_ids,
            "completion_ids": list(completion.completion_ids),
            "logprobs": None if completion.logprobs is None else list(completion.logprobs),
            "finish_reason": completion.finish_reason,
            "text": self.renderer.decode(completion.completion_ids),
            "parent": parent,
            "digest": _chain(digests[-1] if digests else "", message),
            "policy": asdict(completion.policy),
            "sampling": asdict(self.sampling),
        }
        if recorder is not None:
            if not self.allow_midrollout_updates:
                _refuse_change(recorder.records, completion.policy)
            recorder.records.append(message.additional_kwargs[RECORD])
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

        # a thread of its own: the caller may be inside a running event loop
        thread = threading.Thread(target=copy_context().run, args=(run,))
        thread.start()
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def _prompt(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[Mapping[str, Any]],
        digests: Sequence[str],
    ) -> tuple[list[int], list[int], str | None]:
        """Tokens that earlier turns already hold, tokens to add, and the parent record's digest."""
        records: dict[str, Mapping[str, Any]] = {}
        last = None
        base = self.engine.policy_version.base
        for index, message in enumerate(messages):
            record = message.additional_kwargs.get(RECORD)
            # another model's tokens would mean other words to this one
            ours = record and record["policy"]["base"] == base
            if record and ours and record["digest"] == digests[index]:
                records[record["digest"]] = record
                last = index
        if last is None:
            return [], self.renderer.prompt(messages, tools), None
        parent = messages[last].additional_kwargs[RECORD]
        prefix: list[int] = []
        link: str | None = parent["digest"]
        while link is not None:
            record = records[link]
            prefix[:0] = [*record["context_ids"], *record["completion_ids"]]
            link = record["parent"]
        closed = bool(prefix) and prefix[-1] in self.renderer.stop_ids
        return (
            prefix,
            self.renderer.continuation(messages[last + 1 :], turn_closed=closed),
            parent["digest"],
        )

    def _message(self, completion: Completion, *, turn: int, num_prompt: int) -> AIMessage:
        parsed = parse_turn(self.renderer.decode(completion.completion_ids))
        calls: list[ToolCall] = []
        invalid: list[InvalidToolCall] = []
        for slot, call in enumerate(parsed.calls):
            if isinstance(call, InvalidCall):
                invalid.append(
                    InvalidToolCall(
                        type="invalid_tool_call",
                        name=None,
                        args=call.text,
                        id=call_id(turn, slot),
                        error=call.reason,
                    )
                )
            else:
                calls.append(
                    ToolCall(
                        type="tool_call",
                        name=call.name,
                        args=call.arguments,
                        id=call_id(turn, slot),
                    )
                )
        num_sampled = len(completion.completion_ids)
        return AIMessage(
            content=parsed.content,
            tool_calls=calls,
            invalid_tool_calls=invalid,
            response_metadata={"finish_reason": completion.finish_reason},
            usage_metadata=UsageMetadata(
                input_tokens=num_prompt,
                output_tokens=num_sampled,
                total_tokens=num_prompt + num_sampled,
            ),
        )


def _refuse_change(records: Sequence[Mapping[str, Any]], version: PolicyVersion) -> None:
    """Raises EngineError where this model sampled the run's earlier turns with other weights."""
    for record in records:
        before = PolicyVersion(**record["policy"])
        if before.base == version.base and before.weights != version.weights:
            raise EngineError(
                f"The weights changed in the middle of a trajectory (step {before.step} to "
                f"{version.step}), and one trajectory is of one version: let rollouts end before "
                "new weights are published, or allow it with policy.allow_midrollout_updates=true."
            )


@asynccontextmanager
async def _streaming(
    run_manager: AsyncCallbackManagerForLLMRun | None, renderer: Any
) -> AsyncIterator[Callable[[int], None] | None]:
    """Tells the callbacks the text as it is sampled; yields None where nobody listens."""
    if run_manager is None or not run_manager.handlers:
        yield None
        return
    loop = asyncio.get_running_loop()
    tokens: asyncio.Queue[int | None] = asyncio.Queue()
    telling = asyncio.create_task(_tell(tokens, run_manager, renderer))

    def on_token(token: int) -> None:
        with suppress(RuntimeError):  # the loop may have ended, and nobody listens any more
            loop.call_soon_threadsafe(tokens.put_nowait, token)

    try:
        yield on_token
        loop.call_soon(tokens.put_nowait, None)  # after the tokens that are on their way
        await telling
    finally:
        telling.cancel()


async def _tell(
    tokens: asyncio.Queue[int | None], run_manager: AsyncCallbackManagerForLLMRun, renderer: Any
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


def call_id(turn: int, slot: int) -> str:
    """Id of a turn's call: unique in the conversation, and tells the order in which calls were
    written."""
    return f"call_{turn}_{slot}"


def call_slot(tool_call_id: str) -> int:
    """Position of a call among its turn's calls, from its id."""
    return int(tool_call_id.rsplit("_", 1)[1])


def _digests(messages: Sequence[BaseMessage], tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """One digest a message, over everything up to and including it."""
    digest = hashlib.blake2b(json.dumps(list(tools), sort_keys=True).encode()).hexdigest()[:32]
    digests = []
    for message in messages:
        digest = _chain(digest, message)
        digests.append(digest)
    return digests


def _chain(digest: str, message: BaseMessage) -> str:
    said: list[Any] = [digest, message.type, message.content]
    if isinstance(message, AIMessage):
        said += [[c["name"], c["args"]] for c in message.tool_calls]
        said += [c["args"] for c in message.invalid_tool_calls]
    text = json.dumps(said, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
