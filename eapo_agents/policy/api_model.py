"""An API model as an untrained policy: the same graphs, and traces without tokens.

Its turns come from a service as text and calls. A record says so (`TurnRecord.billed`) and has what
the service counted. What the model thought is kept in the message and in the ledger, and is never
sent back.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import SkipValidation

from eapo_agents.errors import (
    BudgetError,
    EapoError,
    EngineError,
    EngineLostError,
    ExpertDownError,
    ExpertError,
    ExpertSetupError,
    ModelError,
    TransientExpertError,
    UsageError,
)
from eapo_agents.experts.call_store import CallSite
from eapo_agents.experts.chat_reply import WrittenCall
from eapo_agents.experts.consulting import current_consulting
from eapo_agents.experts.expert import Answer
from eapo_agents.experts.pool_tools import BLOCKING
from eapo_agents.policy.api_services import Request, read_written
from eapo_agents.policy.chat_messages import last_piece, message_of
from eapo_agents.policy.engine import Cohort, Completion, NoCohort, RolloutKey
from eapo_agents.policy.formats import InvalidCall, ParsedCall, ParsedTurn
from eapo_agents.policy.formats.base import MAX_CALL_CHARS
from eapo_agents.policy.recorded_model import Asked, RecordedChatModel
from eapo_agents.policy.recording import TurnRecord, continued_turns, said_until
from eapo_agents.policy.tool_calls import format_call
from eapo_agents.types import Billed, ConsultationStatus, PolicyVersion, Sampling

Ask = Callable[[Mapping[str, object], CallSite], Awaitable[Answer]]
_NOT_HERE = (
    "The policy is an API model, '{name}': it has no weights and no tokens here, so that it cannot "
    "be trained. Name a model whose weights are here (policy.model), or use the API model with "
    "`eapo run`, `chat`, `collect` and `eval`, and export its answers with `eapo traces export "
    "--as sft`."
)
_ABOUT_TOOLS = re.compile(r"\btools?\b|tool[_ -]c|function[_ -]call", re.I)
_LEFT_IN_TEXT = re.compile(
    r"^\s*(?:<tool_call>|<function=|\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call|<\uff5ctool)", re.M
)
"""How a call begins in the text of a server that does not read calls."""


def refuse_training(name: str) -> ModelError:
    """Return the error of whoever would train an API model."""
    return ModelError(_NOT_HERE.format(name=name))


@dataclass(frozen=True, slots=True)
class NotHere:
    """Stands for the weights and the tokenizer of an API model: there are none."""

    name: str

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        raise refuse_training(self.name)


class ApiEngine:
    """The engine of an API model: it names the model, and samples no tokens."""

    def __init__(self, name: str, facts: Mapping[str, object]) -> None:
        """Take the model's name, and what makes it this one, such as its address."""
        text = json.dumps(facts, sort_keys=True, default=str)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        self._version = PolicyVersion(model=name, base=digest, weights=digest, step=0)

    @property
    def policy_version(self) -> PolicyVersion:
        return self._version

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        raise EngineError(_NOT_HERE.format(name=self._version.model))

    @contextmanager
    def cohort(self, num_rollouts: int) -> Iterator[Cohort]:
        yield NoCohort()


class ApiChatModel(RecordedChatModel):
    """A LangChain chat model over the service of an API model."""

    ask: SkipValidation[Ask]
    """What asks the service: `ExpertPool.ask_policy`."""
    takes_tools: bool = True
    """Whether the service can be offered tools at all."""

    @property
    def _llm_type(self) -> str:
        return "eapo-api-policy"

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools. The service decides what a `tool_choice` does.

        Raises:
            UsageError: the model takes no tools.
        """
        if tools and not self.takes_tools:
            raise UsageError(
                f"The graph offers tools to the policy, and '{self.engine.policy_version.model}' "
                "takes none (its bind_tools is not implemented): take another chat model, or run "
                "it alone (--graph solo)."
            )
        return super().bind_tools(tools, tool_choice=tool_choice, **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        # in one piece: a thought in the text is known for one only when it has ended
        yield last_piece(await self._turn(messages, stop, None, **kwargs), "")

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # in one loop, whichever thread asks: it knows how many calls are in flight
        metadata = run_manager.metadata if run_manager else None
        turn = BLOCKING.run(lambda: self._turn(messages, stop, None, metadata=metadata, **kwargs))
        return ChatResult(generations=[ChatGeneration(message=turn)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        turn = BLOCKING.run(lambda: self._turn(messages, stop, None, **kwargs))
        yield last_piece(turn, "")

    async def _sample(
        self, asked: Asked, on_token: Callable[[int], None] | None
    ) -> tuple[AIMessage, TurnRecord]:
        try:
            answer = await self._answered(asked)
        except (BudgetError, EngineLostError) as error:
            _end_run(error)  # a node may catch it: the rollout must end all the same
            raise
        written = read_written(answer.text)
        parsed = ParsedTurn(
            content=written.content,
            calls=tuple(map(_read, written.calls)),
            thinking=answer.usage.thought,
        )
        usage, version = answer.usage, self.engine.policy_version
        billed = Billed(
            prompt_tokens=usage.prompt_tokens if usage.known else None,
            completion_tokens=usage.completion_tokens if usage.known else None,
            cost_usd=answer.cost_usd,
        )
        message = message_of(
            parsed,
            asked.id,
            finish_reason=written.finish_reason,
            model=version.model,
            num_prompt=billed.prompt_tokens,
            num_sampled=billed.completion_tokens,
        )
        return message, TurnRecord(
            id=asked.id,
            parent=_parent(asked, version.base),
            context_ids=(),
            completion_ids=(),
            logprobs=None,
            text=_as_text(parsed),
            calls=parsed.named,
            finish_reason=written.finish_reason,
            policy=version,
            sampling=asked.sampling,
            history=said_until(asked.said[-1], message),
            billed=billed,
        )

    async def _answered(self, asked: Asked) -> Answer:
        """Return the service's answer.

        Raises:
            BudgetError: the budget is spent.
            EngineLostError: the service is down, or would refuse every turn.
            ExpertError: it failed in this turn.
        """
        key = asked.key
        request = Request(
            messages=asked.messages,
            tools=asked.tools,
            tool_choice=asked.tool_choice,
            sampling=asked.sampling,
        )
        site = CallSite(
            problem_id=key.problem_id,
            global_step=key.step,
            rollout=key.rollout,
            turn=key.turn,
        )
        answer = await self.ask({"request": request}, site)
        if not answer.accepted:
            raise self._failure(answer, offered=bool(asked.tools))
        written = read_written(answer.text)
        if asked.tools and not written.calls and _LEFT_IN_TEXT.search(written.content):
            raise ExpertError(
                "The service left a call in the text, unread: "
                f"{written.content[:80]!r}; start its server with its parser of tool calls."
            )
        return answer

    def _failure(self, answer: Answer, *, offered: bool) -> EapoError:
        said, raised = answer.error or "It failed.", answer.raised
        if isinstance(raised, ExpertSetupError | ExpertDownError):
            return self._lost(said.rstrip("."))
        if offered and isinstance(raised, ExpertError) and _ABOUT_TOOLS.search(said):
            return self._lost(
                f"{said.rstrip('.')}. The graph offers it tools: serve it with tool calls, or run "
                "it alone (--graph solo)"
            )
        if isinstance(raised, TransientExpertError) or answer.status is ConsultationStatus.TIMEOUT:
            return TransientExpertError(said)
        return ExpertError(said)

    def _lost(self, why: str) -> EngineLostError:
        name = self.engine.policy_version.model
        return EngineLostError(
            f"The API model '{name}' cannot go on: {why}. What has ended is kept, and the same "
            "command continues."
        )


def _end_run(error: EapoError) -> None:
    with suppress(UsageError):
        who = current_consulting()
        if who is not None:
            who.failure = who.failure or error


def _parent(asked: Asked, base: str) -> str | None:
    """Return the turn of the same run that this one continues."""
    line, _ = continued_turns(asked.messages, asked.said, base, asked.recorded or ())
    known = {record.id for record in asked.recorded or ()}
    return line[-1].id if line and (asked.recorded is None or line[-1].id in known) else None


def _read(call: WrittenCall) -> ParsedCall | InvalidCall:
    """Return a call of a service, or why it cannot be sent."""
    text = f"{call.name} {call.arguments}"[:MAX_CALL_CHARS]
    if len(call.arguments) > MAX_CALL_CHARS:
        reason = f"The call is longer than {MAX_CALL_CHARS:,} characters."
        return InvalidCall(text=text, reason=reason)
    try:
        arguments = json.loads(call.arguments, strict=False)
        # an escape may have hidden half a character, which no file takes
        whole = json.dumps(arguments, ensure_ascii=False).encode("utf-8", "replace")
        arguments = json.loads(whole, strict=False)
    except (ValueError, RecursionError) as error:
        return InvalidCall(text=text, reason=f"The arguments of the call are not JSON: {error}.")
    if not call.name:
        return InvalidCall(text=text, reason="The call names no tool.")
    if not isinstance(arguments, dict):
        return InvalidCall(text=text, reason="The arguments of a call must be a JSON object.")
    return ParsedCall(name=call.name, arguments=arguments)


def _as_text(parsed: ParsedTurn) -> str:
    """Return a turn as one text, for people: its thought and its calls in the commonest form."""
    parts = [f"<think>\n{parsed.thinking}\n</think>\n" if parsed.thinking else "", parsed.content]
    parts += [
        call.text if isinstance(call, InvalidCall) else format_call(call.name, call.arguments)
        for call in parsed.calls
    ]
    return "\n".join(part for part in parts if part)
