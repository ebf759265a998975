"""One expert as a recipe describes it, and the end of a query to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from langchain_core.tools import BaseTool
from pydantic import Field, SkipValidation

from eapo_agents.experts.usage import FREE, NOTHING, Price, Usage
from eapo_agents.settings import Settings
from eapo_agents.types import ConsultationStatus


class CallSettings(Settings):
    """How a service is called, be it an expert's or the policy's."""

    timeout_s: float = Field(30.0, gt=0)
    """Limit for one call, including its retries but not its wait in the queue."""
    queue_timeout_s: float = Field(600.0, gt=0)
    """How long a call may wait for `concurrency` and `per_minute`."""
    retries: int = Field(2, ge=0, le=10)
    """Further attempts after a transient failure."""
    concurrency: int | None = Field(None, ge=1)
    """Most calls in flight at once. `null` is no limit."""
    per_minute: float | None = Field(None, gt=0)
    """Most calls begun per minute. `null` is no limit."""
    price: Price | None = None
    """Price per million tokens. `null`: unknown for `openai-chat`, your own kinds and an API model
    as policy, unless the service reports what it bills; else free."""


class ExpertSettings(CallSettings):
    """How an expert is called, whatever its kind."""

    fallback: str | None = None
    """Name of the expert that is asked when this one fails."""
    tasks: tuple[str, ...] = ()
    """With routing by task: the tasks that it serves; none means all."""
    offered: bool = True
    """Whether the policy may ask it by name. A mere fallback need not be offered."""
    max_reply_chars: int = Field(20_000, ge=1)
    """Longer replies are cut, and marked as cut."""
    sees: Literal["query", "problem"] = "query"
    """`problem`: each query comes with the rollout's question before it. The gold answer is never
    shown."""


class Expert(ExpertSettings):
    """An expert, ready to be called. A LangChain tool of any kind can be one."""

    tool: SkipValidation[BaseTool]
    replicas: tuple[SkipValidation[BaseTool], ...] = ()
    """Further endpoints of the same expert. The least busy endpoint is asked first."""
    kind: str = "tool"
    price: Price | None = FREE
    """None if the price is unknown."""
    identity: Mapping[str, object] | None = None
    """Names a request together with its arguments. None: replies are not stored."""
    interactive: bool = False
    """Asks a person: without timeout or retry, and only by name."""

    @property
    def name(self) -> str:
        """The name that the policy uses."""
        return self.tool.name

    @property
    def tools(self) -> list[BaseTool]:
        """Every endpoint."""
        return [self.tool, *self.replicas]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The end of one query."""

    status: ConsultationStatus
    text: str
    """The reply; empty without one."""
    error: str | None = None
    latency_s: float = 0.0
    """Time of the call with its retries, without the wait in the queue."""
    usage: Usage = NOTHING
    """What this query was billed: nothing if the reply was stored."""
    cost_usd: float | None = 0.0
    attempts: int = 0
    cached: bool = False
    answered_by: str = ""
    """The expert that replied, if routing or a fallback chose it."""
    raised: Exception | None = None
    """What a call that failed has raised last."""

    @property
    def accepted(self) -> bool:
        """Whether there is a reply."""
        return self.status is ConsultationStatus.ACCEPTED
