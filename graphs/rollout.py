"""Runs graphs on problems and turns what happened into trajectories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    SystemMessage,
)
from langgraph.errors import GraphRecursionError
from pydantic import TypeAdapter

from eapo_agents.errors import (
    BudgetError,
    EngineLostError,
    StoreError,
    TraceError,
    UndecidedError,
    UsageError,
)
from eapo_agents.experts.consulting import Consulting, consulting
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recorded_model import RecordedChatModel
from eapo_agents.policy.recording import recording
from eapo_agents.rewards import Reward, TaskReward, may_be_slow, score_text, scored
from eapo_agents.types import (
    PolicyVersion,
    Problem,
    Role,
    RolloutGroup,
    StopReason,
    Trajectory,
    Turn,
)
from graphs.concurrency import Concurrency
from graphs.failures import describe
from graphs.fill import RolloutPlan as RolloutPlan
from graphs.fill import run_plans
from graphs.groups import NO_ASSISTANCE, Assistance
from graphs.running import in_time, in_whole
from graphs.state import AnyGraph as AnyGraph
from graphs.state import RolloutContext, role_of
from graphs.traced import Traced
from graphs.turns import messages_in, turns_of

INTERRUPTS = "__interrupt__"
"""LangGraph's key of what a graph waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """How the rollouts of a run are run; `run` is what `graphs.fill` calls."""

    graph: AnyGraph
    """One of ours, or any LangGraph graph that calls `policy`."""
    solo_graph: AnyGraph | None = None
    """What rollouts without experts run. None: `graph`, where it is the consult graph."""
    policy: RecordedChatModel
    system_prompt: str
    seed: int
    global_step: int = 0
    reward: Reward | None = score_text
    """None: answers are not scored now. Benchmarks grade afterwards, from what was stored."""
    examples: Sequence[tuple[str, str]] = ()
    """Questions and answers that stand before the problem in every prompt."""
    assistance: Assistance = NO_ASSISTANCE
    inputs: Callable[[Problem], Any] | None = None
    """Problem -> the graph's input, where it is not a list of messages."""
    answer_of: Callable[[Any], str | None] | None = None
    """The graph's final state -> the answer, where it is not the last message's text."""
    timeout_s: float | None = None
    """Time limit of one rollout, which then counts as failed."""

    def __post_init__(self) -> None:
        if self.assistance.solo_share and self.graph_of(solo=True) is None:
            raise UsageError(
                f"A share of {self.assistance.solo_share:g} of the rollouts runs without experts, "
                f"and the graph '{self.graph.name}' has no variant without them: give a solo_graph."
            )

    def graph_of(self, *, solo: bool) -> AnyGraph | None:
        """Return what rollouts with experts run, or those without."""
        if not solo:
            return self.graph
        return self.graph if role_of(self.graph) is not Role.OWN else self.solo_graph

    def plan(self, problem: Problem, num_rollouts: int, *, run_id: str, key: str) -> RolloutPlan:
        """Return the plan of a whole group."""
        return RolloutPlan(
            problem=problem,
            rollouts=range(num_rollouts),
            run_id=run_id,
            key=key,
            num_solo=self.assistance.num_solo(num_rollouts),
            solo_first=self.assistance.solo_first,
        )

    async def run(self, plan: RolloutPlan, rollout: int, ended: Sequence[Trajectory]) -> Trajectory:
        """Run and score one rollout. One that fails is recorded with its error and no reward. A
        grader that fails raises (`GradingError`): nothing is scored 0 for want of a score.

        Raises:
            BudgetError: the experts' budget is spent.
            EngineLostError: the policy's engine is gone.
            StoreError: the experts' ledger cannot be written.
        """
        problem = plan.problem
        solo = rollout < plan.num_solo
        context = RolloutContext(
            problem_id=problem.id,
            seed=self.seed,
            rollout=rollout,
            global_step=self.global_step,
            rho=None if solo else self.assistance.rho(self.global_step, ended),
            solo=solo,
        )
        graph = self.graph_of(solo=solo)
        assert graph is not None
        async with Traced(graph, context) as traced:
            return traced.ended(await _run_one(self, graph, problem, context))

    def input_of(self, problem: Problem) -> Any:
        """Return what a graph is given for a problem."""
        if self.inputs:
            return self.inputs(problem)
        return {"messages": first_messages(self.system_prompt, problem.question, self.examples)}


async def run_group(
    graph: AnyGraph,
    policy: RecordedChatModel,
    problem: Problem,
    num_rollouts: int,
    **options: Any,
) -> RolloutGroup:
    """Run G rollouts of one problem at once. `options` are those of `run_rollouts`."""
    plan = RolloutPlan(problem=problem, rollouts=range(num_rollouts))
    (group,) = await run_rollouts(graph, policy, [plan], **options)
    return group


async def run_rollouts(
    graph: AnyGraph,
    policy: RecordedChatModel,
    plans_P: Sequence[RolloutPlan],
    *,
    system_prompt: str,
    seed: int,
    scored: bool = True,
    on_trajectory: Callable[[Trajectory], None] = lambda trajectory: None,
    **options: Any,
) -> list[RolloutGroup]:
    """Run every planned rollout at once, without a store.

    Args:
        on_trajectory: called with each trajectory as it ends.
        options: further settings of `Rollouts`.

    Raises:
        BudgetError, EngineLostError: as `fill` does.
    """
    if not scored:
        options["reward"] = None
    rollouts = Rollouts(
        graph=graph,
        policy=policy,
        system_prompt=system_prompt,
        seed=seed,
        **options,
    )
    found: dict[str, RolloutGroup] = {}
    await run_plans(
        [replace(plan, key=str(index)) for index, plan in enumerate(plans_P)],
        rollouts.run,
        engine=policy.engine,
        concurrency=Concurrency(sum(len(p.rollouts) for p in plans_P) or 1, policy.engine),
        on_trajectory=lambda plan, trajectory: on_trajectory(trajectory),
        on_group=lambda plan, group: found.__setitem__(plan.key, group),
    )
    return [found[str(index)] for index in range(len(plans_P))]


def group_key(problem: Problem, step: int) -> str:
    """Names a group within a run, so that a resumed run finds what it has."""
    return f"{step}/{problem.id}"


def first_messages(
    system_prompt: str, question: str, examples: Sequence[tuple[str, str]] = ()
) -> list[AnyMessage]:
    """How every run of ours begins."""
    messages: list[AnyMessage] = [SystemMessage(system_prompt)] if system_prompt else []
    for asked, answered in examples:
        messages += [HumanMessage(asked), AIMessage(answered)]
    return [*messages, HumanMessage(question)]


async def _run_one(
    how: Rollouts, graph: AnyGraph, problem: Problem, context: RolloutContext
) -> Trajectory:
    started = time.perf_counter()
    policy, role = how.policy, role_of(graph)
    facts: dict[str, Any] = {
        "problem": problem,
        "graph": graph.name if role is Role.OWN or not context.solo else Role.SOLO.value,
        "role": Role.SOLO if context.solo else role,
        "policy": policy.engine.policy_version,
        "sampling": policy.sampling,
        "seed": context.seed,
        "rollout": context.rollout,
        "global_step": context.global_step,
    }
    who = Consulting(
        seed=context.seed,
        problem_id=problem.id,
        problem=problem,
        global_step=context.global_step,
        rollout=context.rollout,
        rho=context.rho,
    )
    try:
        ran = await _run_graph(how, graph, context, how.input_of(problem), who)
        facts["policy"], turns, reason, answer = ran
    except (BudgetError, EngineLostError, StoreError):
        raise
    except Exception as error:  # a bad rollout is data: the group goes on without it
        # a node has wrapped it
        if isinstance(who.failure, BudgetError | EngineLostError | StoreError):
            raise who.failure from error
        return failed(facts, describe(error), time.perf_counter() - started)
    unscored = Trajectory(
        **facts,
        turns=turns,
        stop_reason=reason,
        answer=answer,
        reward=None,
        correct=None,
        error=None,
        duration_s=time.perf_counter() - started,
    )
    return await score_trajectory(unscored, how.reward)


def failed(facts: Mapping[str, Any], error: str, duration_s: float) -> Trajectory:
    """Return a rollout that failed: what names it, and why."""
    return Trajectory(
        **facts,
        turns=(),
        stop_reason=StopReason.ERROR,
        answer=None,
        reward=None,
        correct=None,
        error=error,
        duration_s=duration_s,
    )


async def _run_graph(
    how: Rollouts, graph: AnyGraph, context: RolloutContext, given: Any, who: Consulting
) -> tuple[PolicyVersion, tuple[Turn, ...], StopReason, str | None]:
    """Return the weights that sampled first, the turns, why the run ended, and its answer."""
    key = RolloutKey(
        seed=context.seed,
        problem_id=context.problem_id,
        step=context.global_step,
        rollout=context.rollout,
        turn=0,
    )
    base = how.policy.engine.policy_version.base  # a graph may call other models of ours too
    ended = True
    with recording(key, base) as recorder, consulting(who):
        try:
            state = await in_time(in_whole(graph, given, context, recorder), how.timeout_s)
        except GraphRecursionError:
            state, ended = None, False
    if who.failure is not None:
        raise who.failure
    if recorder.fault is not None:
        raise TraceError(recorder.fault)
    if isinstance(state, Mapping) and INTERRUPTS in state:
        raise UsageError("The graph waits for a person, and a rollout has nobody to ask.")
    records = recorder.in_order()
    own = [record for record in records if record.policy.base == base]
    if not own:
        raise UsageError("The graph never called the policy.")
    turns = turns_of(
        messages_in(state),
        records,
        policy=own[0].policy,
        sampling=how.policy.sampling,
        asked=who,
    )
    if not ended:  # as in the consult graph: what the policy did, and no answer
        return own[0].policy, turns, StopReason.TURN_BUDGET, None
    return own[0].policy, turns, *_outcome(graph, state, turns, how.answer_of)


async def score_trajectory(trajectory: Trajectory, reward: Reward | None) -> Trajectory:
    """Return a trajectory with its reward; without one where it cannot be scored."""
    answer, problem = trajectory.answer, trajectory.problem
    if reward is None:
        return trajectory
    if isinstance(reward, TaskReward):
        try:
            value, right, parts = await reward.score(answer, problem, trajectory)
        except UndecidedError:
            return trajectory
        return replace(trajectory, reward=value, correct=right, reward_parts=parts)
    if may_be_slow(reward, problem):  # not in the loop that serves other rollouts
        number, correct = await asyncio.to_thread(scored, reward, answer, problem)
    else:
        number, correct = scored(reward, answer, problem)
    return replace(trajectory, reward=number, correct=correct)


def _outcome(
    graph: AnyGraph,
    state: Any,
    turns: Sequence[Turn],
    answer_of: Callable[[Any], str | None] | None,
) -> tuple[StopReason, str | None]:
    """Why the run ended, and its answer."""
    # a user's graph may mean something else by this key
    if role_of(graph) is not Role.OWN and "stop_reason" in state:
        reason = StopReason(state["stop_reason"])
        answered = reason is StopReason.ANSWERED
        return reason, messages_in(state)[-1].text if answered else None
    answer = answer_of(state) if answer_of else answer_in(state)
    if answer is not None and not isinstance(answer, str):
        raise UsageError(
            f"answer_of must return a text or None, and it returned a {type(answer).__name__}: "
            "write it as text, such as JSON."
        )
    if answer and answer.strip():
        return StopReason.ANSWERED, str(answer)
    cut_off = turns[-1].finish_reason == "length"
    return StopReason.LENGTH if cut_off else StopReason.EMPTY, None


def answer_in(state: Any) -> str | None:
    """Return the answer in a final state: its structured response as JSON, where it has one, else
    the last message's text."""
    found = state.get("structured_response") if isinstance(state, Mapping) else None
    if found is not None:
        return TypeAdapter(Any).dump_json(found).decode()
    messages = messages_in(state)
    return messages[-1].text if messages else None
