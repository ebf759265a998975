"""One expert as a recipe describes it, and how a query to it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import BaseTool

from eapo_agents.experts.usage import FREE, NOTHING, Price, Usage
from eapo_agents.types import ConsultationStatus

MAX_REPLY_CHARS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Expert:
    """An expert as a recipe describes it. Any LangChain tool can be one."""

    tool: BaseTool
    replicas: Sequence[BaseTool] = ()
    """Further endpoints of the same expert; the least busy is asked first."""
    kind: str = "tool"
    timeout_s: float = 30.0
    """For one call, its retries included; waiting in the queue is not."""
    queue_timeout_s: float = 600.0
    """How long a call may wait for `concurrency` and `per_minute`."""
    retries: int = 2
    """Further attempts after a failure that may pass."""
    concurrency: int | None = None
    """Calls in flight at once."""
    per_minute: float | None = None
    """Calls begun a minute."""
    price: Price | None = FREE
    """None where it is not known."""
    fallback: str | None = None
    """The expert that is asked when this one fails."""
    tasks: Sequence[str] = ()
    """With routing by task: the tasks that it is for; none means any."""
    offered: bool = True
    """Whether the policy may ask it by name; a mere fallback need not be offered."""
    identity: Mapping[str, Any] | None = None
    """What names a request beside its arguments; None: replies are not stored."""
    max_reply_chars: int = MAX_REPLY_CHARS
    """Longer replies are cut, and marked as cut."""
    interactive: bool = False
    """Asks a person: no timeout, no retry, and only by name."""

    @property
    def name(self) -> str:
        """What the policy calls it."""
        return self.tool.name

    @property
    def tools(self) -> list[BaseTool]:
        """Every endpoint."""
        return [self.tool, *self.replicas]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one query ended."""

    status: ConsultationStatus
    text: str
    """The reply; empty where there is none."""
    error: str | None = None
    latency_s: float = 0.0
    """Of the call with its retries; the wait in the queue is not in it."""
    usage: Usage = NOTHING
    """What this query was billed: nothing where the reply was stored."""
    cost_usd: float | None = 0.0
    attempts: int = 0
    cached: bool = False
    answered_by: str = ""
    """The expert that replied, where routing or a fallback chose it."""

    @property
    def accepted(self) -> bool:
        """Whether there is a reply."""
        return self.status is ConsultationStatus.ACCEPTED
