"""The pool of experts, offered to the policy as LangChain tools: routing, fallbacks, quorum."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from langchain_core.tools import BaseTool, StructuredTool, Tool
from pydantic import ValidationError

from eapo_agents.errors import ExpertError, UsageError
from eapo_agents.experts.budget import Budget
from eapo_agents.experts.call_store import CallSite, CallStore, LedgerRow
from eapo_agents.experts.calling import ExpertCaller
from eapo_agents.experts.consulting import current_consulting
from eapo_agents.experts.expert import Answer, Expert
from eapo_agents.experts.listening import listening
from eapo_agents.experts.pool_tools import ALWAYS, ExpertTool
from eapo_agents.experts.usage import total, total_usd
from eapo_agents.schedules import AcceptanceSchedule
from eapo_agents.types import ConsultationStatus

ROUTINGS = ("named", "round_robin", "cheapest", "by_task")
ANY = "expert"
"""The one tool that is offered if the pool, not the policy, chooses the expert."""
ALL = "all_experts"
"""The tool that asks every expert."""
UNKNOWN = "?"
"""The ledger's name for an expert that does not exist."""


class ExpertPool:
    """Named experts. A LangChain tool of any kind can be one."""

    def __init__(
        self,
        experts: Sequence[Expert] = (),
        *,
        routing: str = "named",
        ask_all: bool = False,
        quorum: int | None = None,
        budget: Budget | None = None,
        policy: Expert | None = None,
    ) -> None:
        """Put experts together.

        Args:
            routing: with `named`, the policy picks an expert by name. Otherwise one tool is offered
                and the pool picks: `round_robin` each in turn, `cheapest` the cheapest that takes
                calls, `by_task` the first for the problem's task.
            ask_all: whether to offer a tool that asks every expert at once.
            quorum: how many replies that tool waits for; None means all.
            policy: the service of an API model that is the policy: its calls are booked beside the
                experts'.

        Raises:
            UsageError: names, fallbacks, quorum or budget do not fit.
        """
        self.experts = tuple(experts)
        self.budget = budget or Budget()
        self.policy = policy
        self._callers = {expert.name: ExpertCaller(expert) for expert in experts}
        self._policy_caller = ExpertCaller(policy) if policy is not None else None
        self._routing = routing
        self._quorum = quorum
        self._asked_together = [e for e in experts if e.offered and not e.interactive]
        self._store = CallStore()
        self._run_id = ""
        self._check(ask_all)
        offered = [expert.tool for expert in experts if expert.offered]
        if routing != "named" and offered:
            offered = [_query_tool(ANY, "an expert, chosen for the question")]
        if ask_all:
            names = ", ".join(expert.name for expert in self._asked_together)
            offered.append(_query_tool(ALL, f"asks {names} at once"))
        self._offered = offered
        self.tools: list[BaseTool] = self.tools_under()
        """The tools that the policy is offered, for any graph. Outside of a rollout every reply is
        accepted."""

    def open(
        self,
        file: str | Path,
        run_id: str,
        *,
        among: Sequence[str] = (),
        thoughts: bool = True,
    ) -> None:
        """Keep ledger and replies in a file from now on; the budget continues from what the run
        has spent.

        Args:
            among: the runs that share the budget, where that is not this one alone.
            thoughts: whether the ledger keeps them.

        Raises:
            StoreError: the file cannot be used.
        """
        store = CallStore(file, thoughts=thoughts)
        self._store.close()
        self._store, self._run_id = store, run_id
        budget = self.budget
        budget.spent_calls, budget.spent_tokens, budget.spent_usd = store.spent(
            *(among or [run_id])
        )

    def tools_under(
        self, acceptance: AcceptanceSchedule = ALWAYS, max_queries: int | None = None
    ) -> list[BaseTool]:
        """Return the tools under an acceptance schedule and at most `max_queries` a turn."""
        siblings = frozenset(tool.name for tool in self._offered)
        return [
            ExpertTool.of(
                tool, self, acceptance=acceptance, max_queries=max_queries, siblings=siblings
            )
            for tool in self._offered
        ]

    @property
    def run_id(self) -> str:
        """The run whose ledger rows calls become."""
        return self._run_id

    def takes_calls(self, name: str) -> bool:
        """Whether an expert's circuit is closed."""
        return self._callers[name].available

    def rate_limited(self) -> int:
        """Return how often services have said that they get too many requests (HTTP 429)."""
        every = [*self._callers.values(), *([self._policy_caller] if self._policy_caller else [])]
        return sum(caller.rate_limited for caller in every)

    def refuse_unpriced(self) -> None:
        """Raise UsageError if an expert has no price, since a budget in money needs one."""
        if self.policy is not None and self.policy.price is None:
            raise UsageError(
                "A budget in US dollars needs a price for the API model that is the policy: give "
                "policy.calls.price: {input_usd: ..., output_usd: ...} per million tokens, or "
                "limit calls or tokens."
            )
        for expert in self.experts:
            if expert.price is None:
                raise UsageError(
                    f"A budget in US dollars needs a price for every expert, and '{expert.name}' "
                    "does not have one: give it price: {input_usd: ..., output_usd: ...} per "
                    "million tokens, or limit calls or tokens."
                )

    @property
    def store(self) -> CallStore:
        """The ledger and the stored replies."""
        return self._store

    def refusal(self, name: str, arguments: Mapping[str, object] | str) -> str | None:
        """Return why a call cannot be sent, as a sentence for the policy; None if it can."""
        tool = next((tool for tool in self._offered if tool.name == name), None)
        if tool is None:
            known = ", ".join(tool.name for tool in self._offered)
            return f"There is no such expert. You can ask: {known}."
        if not isinstance(arguments, Mapping) or not _fits(tool, arguments):
            return f"{name} takes these arguments: {', '.join(tool.args)}."
        return None

    async def ask(self, name: str, arguments: Mapping[str, object], site: CallSite) -> Answer:
        """Ask through the tool of that name: one expert, the one that the pool picks, or all.

        A failing expert gives an `Answer` too. A fallback has its own timeout, after the first's.

        Raises:
            BudgetError: the budget is spent.
        """
        if name == ALL and name not in self._callers:
            return await self._ask_all(arguments, site)
        if name == ANY and self._routing != "named":
            name = self._route(site)
        answer = await self._ask_one(name, arguments, site)
        seen = {name}
        while not answer.accepted:
            following = self._callers[name].expert.fallback
            if following is None or following in seen:
                break
            name = following
            seen.add(name)
            answer = _after(answer, name, await self._ask_one(name, arguments, site))
        return answer

    async def ask_policy(self, arguments: Mapping[str, object], site: CallSite) -> Answer:
        """Ask the service of the API model that is the policy.

        Raises:
            BudgetError: the budget is spent.
        """
        assert self._policy_caller is not None
        return await self._policy_caller.ask(
            arguments, store=self._store, budget=self.budget, run_id=self._run_id, site=site
        )

    def asks_person(self, name: str) -> bool:
        """Return whether the expert of that name is a person."""
        return any(one.interactive for one in self.experts if one.name == name)

    async def record(
        self, name: str, status: ConsultationStatus, site: CallSite, error: str | None = None
    ) -> None:
        """Enter a query that was not sent into the ledger. A name that is not an expert's becomes
        `?`: the policy writes it, so it could be any text."""
        known = any(tool.name == name for tool in self._offered)
        row = LedgerRow(expert=name if known else UNKNOWN, status=status.value, error=error)
        await asyncio.to_thread(self._store.record, self._run_id, site, row)

    async def _ask_one(self, name: str, arguments: Mapping[str, object], site: CallSite) -> Answer:
        if self._callers[name].expert.sees == "problem":
            arguments = _with_question(arguments)
        return await self._callers[name].ask(
            arguments, store=self._store, budget=self.budget, run_id=self._run_id, site=site
        )

    async def _ask_all(self, arguments: Mapping[str, object], site: CallSite) -> Answer:
        """Ask every expert at once until enough have replied, then cancel the others."""
        names = [expert.name for expert in self._asked_together]
        with listening(None):  # the pieces of several replies would be mixed up
            tasks = [asyncio.ensure_future(self._ask_one(name, arguments, site)) for name in names]
        wanted = self._quorum or len(names)
        replied: set[str] = set()
        try:
            waiting: set[asyncio.Future[Answer]] = set(tasks)
            while waiting and len(replied) < wanted:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for name, task in zip(names, tasks, strict=True):
                    if task.done() and task.result().accepted and len(replied) < wanted:
                        replied.add(name)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        # whoever was cancelled above has no answer
        ended = [
            (name, task.result())
            for name, task in zip(names, tasks, strict=True)
            if not task.cancelled() and task.exception() is None
        ]
        return _together([pair for pair in ended if pair[0] in replied], ended)

    def _route(self, site: CallSite) -> str:
        experts = [expert for expert in self.experts if expert.offered]
        if self._routing == "round_robin":
            # a function of names: the same run asks the same experts whatever the timing
            return experts[(site.rollout + site.turn + site.slot) % len(experts)].name
        if self._routing == "by_task":
            task = site.problem_id.partition("/")[0]
            special = [expert for expert in experts if task in expert.tasks]
            general = [expert for expert in experts if not expert.tasks]
            return (special or general or experts)[0].name
        taking = [expert for expert in experts if self._callers[expert.name].available]
        return min(taking or experts, key=_price).name

    def _check(self, ask_all: bool) -> None:
        names = [expert.name for expert in self.experts]
        if len(set(names)) != len(names):
            raise UsageError(f"Experts need different names, got {', '.join(names)}.")
        if self.policy is not None and self.policy.name in names:
            raise UsageError(
                f"'{self.policy.name}' is the ledger's name for the API model that is the policy: "
                "rename that expert."
            )
        if self._routing not in ROUTINGS:
            raise UsageError(
                f"Unknown routing '{self._routing}': use one of {', '.join(ROUTINGS)}."
            )
        for expert in self.experts:
            if expert.fallback is not None:
                self._check_fallback(expert)
            if expert.sees == "problem" and "query" not in expert.tool.args:
                raise UsageError(
                    f"An expert that sees the problem gets it in its argument query, and "
                    f"'{expert.name}' takes {', '.join(expert.tool.args) or 'none'}: leave `sees` "
                    "out."
                )
        if self.budget.usd is not None:
            self.refuse_unpriced()
        if (ask_all or self._routing != "named") and {ANY, ALL} & set(names):
            raise UsageError(f"'{ANY}' and '{ALL}' are the pool's own names: rename that expert.")
        shared = self._asked_together if ask_all or self._routing != "named" else []
        for expert in shared:
            if list(expert.tool.args) != ["query"]:
                raise UsageError(
                    f"Experts that are routed to or asked together take one argument, query; "
                    f"'{expert.name}' takes {', '.join(expert.tool.args) or 'none'}: offer it by "
                    "name."
                )
        if ask_all and not self._asked_together:
            raise UsageError("consult.ask_all needs an expert that is offered and is not a person.")
        if self._quorum is not None and not 1 <= self._quorum <= len(self._asked_together):
            raise UsageError(
                f"The quorum must be from 1 to the number of experts asked together "
                f"({len(self._asked_together)}), got {self._quorum}."
            )
        if self._routing != "named" and any(e.interactive for e in self.experts):
            raise UsageError("A person can be asked by name only: use routing 'named'.")

    def _check_fallback(self, expert: Expert) -> None:
        known = {other.name: other for other in self.experts if other is not expert}
        if expert.fallback not in known:
            raise UsageError(
                f"The fallback of '{expert.name}' must be another expert, got '{expert.fallback}': "
                f"use one of {', '.join(known) or 'none here'}."
            )
        if known[expert.fallback].interactive:
            raise UsageError(
                f"A person can be asked by name only: '{expert.fallback}' cannot be the fallback "
                f"of '{expert.name}'."
            )
        if expert.tool.args.keys() != known[expert.fallback].tool.args.keys():
            raise UsageError(
                f"'{expert.fallback}' takes other arguments than '{expert.name}' and cannot be "
                "its fallback."
            )


def _fits(tool: BaseTool, arguments: Mapping[str, object]) -> bool:
    schema = tool.args_schema
    if isinstance(schema, dict):  # an MCP tool, which checks the types itself
        return set(schema.get("required", ())) <= arguments.keys()
    if schema is None and isinstance(tool, Tool):
        return arguments.keys() == tool.args.keys()
    try:
        tool.get_input_schema()(**arguments)
    except ValidationError:
        return False
    return True


def _query_tool(name: str, description: str) -> BaseTool:
    async def ask(query: str) -> str:
        raise ExpertError("The pool asks; this tool only describes itself.")

    return StructuredTool.from_function(coroutine=ask, name=name, description=description)


def _with_question(arguments: Mapping[str, object]) -> Mapping[str, object]:
    """Return the arguments with the rollout's question before the query; as they are where there
    is no rollout, as in a chat, or where the question is the query."""
    rollout = current_consulting()
    query = str(arguments.get("query", ""))
    if rollout is None or rollout.problem is None or query.strip() == rollout.problem.question:
        return arguments
    return {**arguments, "query": f"Problem: {rollout.problem.question}\n\nQuery: {query}"}


def _price(expert: Expert) -> float:
    return expert.price.input_usd + expert.price.output_usd if expert.price else float("inf")


def _after(first: Answer, name: str, second: Answer) -> Answer:
    """Return the answer of the fallback `name`, with the time, attempts and cost of both."""
    before = (first.error or "").rstrip(".")
    error = None if second.accepted else f"{before}; then {name}: {second.error}"
    return replace(
        second,
        error=error,
        latency_s=first.latency_s + second.latency_s,
        attempts=first.attempts + second.attempts,
        usage=total([first.usage, second.usage]),
        cost_usd=total_usd([first.cost_usd, second.cost_usd]),
    )


def _together(chosen: Sequence[tuple[str, Answer]], ended: Sequence[tuple[str, Answer]]) -> Answer:
    """Join several answers: the replies in the experts' order, and the cost of all."""
    errors = [f"{name}: {answer.error}" for name, answer in ended if answer.error]
    return Answer(
        status=ConsultationStatus.ACCEPTED if chosen else ConsultationStatus.FAILED,
        text="\n".join(f"[{name}] {answer.text}" for name, answer in chosen),
        error=None if chosen else "; ".join(errors) or "Nobody replied.",
        latency_s=max((answer.latency_s for _, answer in ended), default=0.0),
        usage=total([answer.usage for _, answer in ended]),
        cost_usd=total_usd([answer.cost_usd for _, answer in ended]),
        attempts=max((answer.attempts for _, answer in ended), default=0),
        cached=all(answer.cached for _, answer in ended),
        answered_by=", ".join(name for name, _ in chosen),
    )
