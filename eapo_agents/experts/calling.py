"""Calls an expert. Everything around a call is in this file, and nowhere else.

A call passes these stages: an equal call in flight -> reply store -> budget -> queue -> attempts at
the least busy endpoint, within the timeout -> ledger. Every call ends as an `Answer`, with three
exceptions that are raised: a spent budget, an interrupt for a person, and a cancellation.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from langchain_core.messages import ToolMessage
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_any, stop_base

from eapo_agents.errors import (
    ExpertDownError,
    ExpertError,
    ExpertSetupError,
    TransientExpertError,
    says_down,
)
from eapo_agents.experts.breaker import CircuitBreaker
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.call_store import CallSite, CallStore, LedgerRow, request_key
from eapo_agents.experts.expert import Answer, Expert
from eapo_agents.experts.replies import as_message, call_of, clean, reason_of, text_of, usage_in
from eapo_agents.experts.threads import invoke
from eapo_agents.experts.usage import NOTHING, Usage, cost_usd, total, total_usd
from eapo_agents.per_loop import PerLoop
from eapo_agents.secrets import redact
from eapo_agents.types import ConsultationStatus

CANCELLED = "cancelled"
CUT = " [cut]"
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 8.0
"""Pauses between attempts double from the first to the longest."""


@dataclass(slots=True)
class _Endpoint:
    tool: BaseTool
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)
    in_flight: int = 0
    rate_limited: int = 0
    """How often it said that it gets too many requests."""


class _TooSlow(Exception):
    """The queue or the call took longer than allowed: the answer's status is TIMEOUT."""


@dataclass(slots=True)
class _Call:
    """One call and its attempts so far."""

    arguments: Mapping[str, object]
    begun: float | None = None
    """When the call left the queue."""
    tried: list[_Endpoint] = field(default_factory=list)
    under_way: _Endpoint | None = None
    """The endpoint that has not replied yet, or was cut off before it did."""
    billed: list[Usage] = field(default_factory=list)
    """What each attempt cost that says so, failed ones too."""

    @property
    def attempts(self) -> int:
        return len(self.tried)

    async def attempt(self, endpoint: _Endpoint) -> ToolMessage:
        """Call one endpoint once and report the outcome to its circuit breaker.

        A failed attempt says something about the endpoint only if it is transient or a wrong setup,
        and not one too many (HTTP 429).
        Every other error belongs to this query, such as one that the service refuses to answer.
        """
        self.tried.append(endpoint)
        self.under_way = endpoint
        endpoint.in_flight += 1
        endpoint.breaker.start()
        try:
            reply = await invoke(endpoint.tool, call_of(endpoint.tool, self.arguments))
        except asyncio.CancelledError:
            # by the timeout or by the caller: `under_way` stays, so that `_in_time`, which knows
            # which of the two it was, can count a timeout as the endpoint's failure
            endpoint.breaker.abandoned()
            raise
        except BaseException as error:
            self.under_way = None
            if isinstance(error, ExpertError) and error.usage is not None:
                self.billed.append(error.usage)
            if isinstance(error, TransientExpertError):
                endpoint.rate_limited += error.rate_limited
            if says_down(error):
                endpoint.breaker.failed(at_once=isinstance(error, ExpertSetupError))
            else:
                endpoint.breaker.abandoned()
            raise
        finally:
            endpoint.in_flight -= 1
        self.under_way = None
        endpoint.breaker.succeeded()
        message = as_message(reply)
        self.billed.append(usage_in(message))
        if message.status == "error":  # MCP servers and some tools report failures so
            raise ExpertError(str(message.text) or "The tool failed.")
        return message


@dataclass(slots=True)
class _Booking:
    """Writes the end of one query into the ledger, and its reply into the store."""

    expert: str
    store: CallStore
    run_id: str
    site: CallSite
    request: str | None = None
    """The key under which the reply is stored; None if it is not stored."""
    started: float = field(default_factory=time.perf_counter)

    async def book(
        self, answer: Answer, *, since: float | None = None, status: str | None = None
    ) -> Answer:
        """Return the answer with its latency, counted from `since` or from the beginning. A thread
        writes the file, since nothing may block a server's loop; a cancelled caller does not stop
        it."""
        latency_s = time.perf_counter() - (self.started if since is None else since)
        row = LedgerRow(
            expert=self.expert,
            status=status or answer.status.value,
            cached=answer.cached,
            attempts=answer.attempts,
            prompt_tokens=answer.usage.prompt_tokens,
            completion_tokens=answer.usage.completion_tokens,
            cost_usd=answer.cost_usd,
            latency_s=latency_s,
            error=answer.error,
            thought=answer.usage.thought,
        )
        new = answer.accepted and not answer.cached
        reply = (self.request, answer.text, answer.usage) if self.request and new else None
        await asyncio.to_thread(self.store.record, self.run_id, self.site, row, reply)
        return replace(answer, latency_s=latency_s)


class ExpertCaller:
    """Makes the calls to one expert and holds the state that they share."""

    def __init__(self, expert: Expert) -> None:
        self.expert = expert
        self._endpoints = [_Endpoint(tool) for tool in expert.tools]
        # futures and semaphores belong to the event loop that made them, the circuit breakers and
        # the rate limit to the expert, whichever loop calls it
        self._in_flight: PerLoop[dict[str, asyncio.Future[Answer | None]]] = PerLoop(dict)
        self._places = PerLoop(lambda: asyncio.Semaphore(expert.concurrency or 1))
        self._rate = (
            InMemoryRateLimiter(
                requests_per_second=expert.per_minute / 60,
                check_every_n_seconds=min(0.1, 6 / expert.per_minute),
                max_bucket_size=max(1.0, expert.per_minute / 60),
            )
            if expert.per_minute
            else None
        )

    @property
    def available(self) -> bool:
        """Whether some endpoint would take a call now."""
        return any(not endpoint.breaker.open_for_s() for endpoint in self._endpoints)

    @property
    def rate_limited(self) -> int:
        """How often its services have said that they get too many requests."""
        return sum(endpoint.rate_limited for endpoint in self._endpoints)

    async def ask(
        self,
        arguments: Mapping[str, object],
        *,
        store: CallStore,
        budget: Budget,
        run_id: str,
        site: CallSite,
    ) -> Answer:
        """Answer one query. The module's docstring lists the stages.

        Raises:
            BudgetError: the budget is spent.
        """
        booking = _Booking(self.expert.name, store, run_id, site)
        if self.expert.interactive:
            return await booking.book(await self._ask_person(arguments))
        if self.expert.identity is None:
            return await self._paid(arguments, budget, booking)
        request = booking.request = request_key(self.expert.identity, arguments)
        in_flight = self._in_flight.get()
        while (equal := in_flight.get(request)) is not None:
            # shielded: when this query is cancelled, the others still wait for the same call
            shared = await asyncio.shield(equal)
            if shared is not None:
                free = replace(shared, usage=NOTHING, cost_usd=0.0, attempts=0, cached=True)
                return await booking.book(free)
            # None: it was cancelled or could not be paid; one of those who waited makes the call
        # before the stored replies are looked through: an equal query that comes meanwhile must
        # wait for this one, not pay for a second call
        in_flight[request] = asyncio.get_running_loop().create_future()
        answer = None
        try:
            stored = await asyncio.to_thread(store.reply, request)
            if stored is not None:
                answer = await booking.book(self._accepted(stored[0], cached=True))
            else:
                answer = await self._paid(arguments, budget, booking)
        finally:
            in_flight.pop(request).set_result(answer)
        return answer

    async def _paid(
        self, arguments: Mapping[str, object], budget: Budget, booking: _Booking
    ) -> Answer:
        """Make a call that costs: queue, timeout, attempts."""
        # reserved before the first await: calls that start together cannot exceed the limit
        budget.reserve()
        call = _Call(arguments)
        try:
            reply = await self._in_time(call)
        except asyncio.CancelledError:
            cancelled = self._failed("Nobody waits for the reply any longer.", call.attempts)
            await self._ended(cancelled, call, budget, booking, status=CANCELLED)
            raise
        except GraphBubbleUp:
            raise
        except Exception as error:  # whatever a tool raises becomes a record and a message
            answer = replace(self._failed(reason_of(error), call.attempts), raised=error)
            if isinstance(error, _TooSlow):
                answer = replace(answer, status=ConsultationStatus.TIMEOUT)
            return await self._ended(answer, call, budget, booking)
        finally:
            if not call.attempts:  # it never left the queue
                budget.release()
        answer = self._accepted(text_of(reply), attempts=call.attempts)
        return await self._ended(answer, call, budget, booking)

    async def _ended(
        self,
        answer: Answer,
        call: _Call,
        budget: Budget,
        booking: _Booking,
        *,
        status: str | None = None,
    ) -> Answer:
        """Book what every attempt was billed, whatever came of the call."""
        usage = total(call.billed)
        usage = replace(usage, thought=clean(usage.thought))
        cost = total_usd([cost_usd(each, self.expert.price) for each in call.billed])
        budget.add(tokens=usage.prompt_tokens + usage.completion_tokens, usd=cost or 0.0)
        answer = replace(answer, usage=usage, cost_usd=cost)
        return await booking.book(answer, since=call.begun, status=status)

    async def _in_time(self, call: _Call) -> ToolMessage:
        """Attempt the call within the expert's timeout, which starts after the queue."""
        async with self._place():
            call.begun = time.perf_counter()
            timeout_s = self.expert.timeout_s
            try:
                async with asyncio.timeout(timeout_s) as limit:
                    return await self._attempts(call, time.monotonic() + timeout_s)
            except TimeoutError as error:
                if not limit.expired():
                    raise  # the tool's own TimeoutError, not ours
                if call.under_way is not None:
                    call.under_way.breaker.failed()
                raise _TooSlow(f"No reply within {timeout_s:g} s.") from error

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for a place among the calls in flight, and until the rate allows a call."""
        places = self._places.get() if self.expert.concurrency else None
        held = False
        try:
            try:
                async with asyncio.timeout(self.expert.queue_timeout_s):
                    if places is not None:
                        held = await places.acquire()
                    if self._rate is not None:
                        await self._rate.aacquire()
            except TimeoutError as error:
                raise _TooSlow(
                    f"No place in the queue within {self.expert.queue_timeout_s:g} s."
                ) from error
            yield
        finally:
            if held and places is not None:
                places.release()

    async def _attempts(self, call: _Call, deadline: float) -> ToolMessage:
        """Try until an endpoint replies, the retries are used up, or the deadline is too close."""

        def wait_s(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked_s = error.retry_after_s if isinstance(error, TransientExpertError) else None
            if any(e not in call.tried and not e.breaker.open_for_s() for e in self._endpoints):
                return 0.0  # another endpoint can be asked at once
            longest_s = min(_FIRST_WAIT_S * 2 ** (state.attempt_number - 1), _LONGEST_WAIT_S)
            # Jitter spreads the retries of calls that failed together. It changes timing only, so
            # it need not be a function of names: no trajectory depends on it.
            jitter_s = random.uniform(longest_s / 2, longest_s)
            return asked_s + jitter_s / 10 if asked_s is not None else jitter_s

        retrying = AsyncRetrying(
            stop=stop_any(stop_after_attempt(self.expert.retries + 1), _Deadline(deadline)),
            wait=wait_s,
            retry=retry_if_exception_type(TransientExpertError),
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await call.attempt(self._pick(call.tried))
        raise AssertionError("unreachable: tenacity raises the last error")

    def _pick(self, tried: Sequence[_Endpoint]) -> _Endpoint:
        """Return the least busy endpoint whose circuit is closed; endpoints that have not failed
        this call come first."""
        usable = [e for e in self._endpoints if not e.breaker.open_for_s()]
        if not usable:
            wait_s = min(e.breaker.open_for_s() for e in self._endpoints)
            raise ExpertDownError(
                f"{self.expert.name} failed too often: it gets no calls for {wait_s:.0f} s more."
            )
        return min(usable, key=lambda e: (tried.count(e), e.in_flight))

    async def _ask_person(self, arguments: Mapping[str, object]) -> Answer:
        try:
            reply = await self.expert.tool.ainvoke(call_of(self.expert.tool, arguments))
        except GraphBubbleUp:
            raise  # the interrupt: the graph stops here until the person has replied
        except Exception as error:
            return self._failed(reason_of(error), 1)
        return self._accepted(text_of(as_message(reply)), attempts=1)

    def _accepted(self, text: str, *, attempts: int = 0, cached: bool = False) -> Answer:
        text = clean(text)
        if len(text) > self.expert.max_reply_chars:
            text = text[: self.expert.max_reply_chars] + CUT
        return Answer(
            status=ConsultationStatus.ACCEPTED,
            text=text,
            attempts=attempts,
            cached=cached,
            answered_by=self.expert.name,
        )

    def _failed(self, error: str, attempts: int) -> Answer:
        return Answer(
            status=ConsultationStatus.FAILED, text="", error=redact(error), attempts=attempts
        )


class _Deadline(stop_base):
    """Stops retrying if the next wait would end after the deadline: that attempt would time out."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline

    def __call__(self, retry_state: RetryCallState) -> bool:
        return time.monotonic() + retry_state.upcoming_sleep >= self._deadline
