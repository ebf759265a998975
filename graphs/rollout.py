"""Runs graphs on problems and turns what happened into trajectories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langgraph.graph.state import CompiledStateGraph

from eapo_agents.errors import BudgetError, EngineLostError, UsageError
from eapo_agents.grading import LENIENT, SLOW
from eapo_agents.policy.chat_model import PolicyChatModel
from eapo_agents.policy.engine import RolloutKey
from eapo_agents.policy.recording import recording
from eapo_agents.policy.tool_calls import parse_turn
from eapo_agents.rewards import score_text
from eapo_agents.secrets import redact
from eapo_agents.types import Problem, Role, RolloutGroup, StopReason, Trajectory, Turn
from graphs.state import RolloutContext
from graphs.turns import messages_in, turns_of

INTERRUPTS = "__interrupt__"
"""LangGraph's key of what a graph waits for."""
AnyGraph = CompiledStateGraph[Any, Any, Any, Any]
"""One of our graphs or a user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Which rollouts of one problem to run."""

    problem: Problem
    rollouts: Sequence[int]
    """Indices within the group."""
    num_solo: int = 0
    """The first so many indices of the group run without experts (graphs of ours only)."""
    rho: float | None = None
    """Takes the place of the schedule's."""
    before: Sequence[Trajectory] = ()
    """Members of the group that have been run already."""


async def run_group(
    graph: AnyGraph,
    policy: PolicyChatModel,
    problem: Problem,
    num_rollouts: int,
    **options: Any,
) -> RolloutGroup:
    """G rollouts of one problem, side by side. See `run_rollouts` for the options."""
    plan = RolloutPlan(problem=problem, rollouts=range(num_rollouts))
    (group,) = await run_rollouts(graph, policy, [plan], **options)
    return group


async def run_rollouts(
    graph: AnyGraph,
    policy: PolicyChatModel,
    plans_P: Sequence[RolloutPlan],
    *,
    system_prompt: str,
    seed: int,
    global_step: int = 0,
    format_reward: float = 0.1,
    scored: bool = True,
    examples: Sequence[tuple[str, str]] = (),
    on_trajectory: Callable[[Trajectory], None] = lambda trajectory: None,
    inputs: Callable[[Problem], Any] | None = None,
    answer_of: Callable[[Any], str | None] | None = None,
) -> list[RolloutGroup]:
    """Runs every planned rollout at once, in one cohort of the engine, and scores what came out.

    Args:
        graph: one of ours, or any LangGraph graph that calls `policy`.
        scored: whether answers are graded now; benchmarks grade afterwards, from what was stored.
        examples: questions and answers that stand before the problem in every prompt.
        on_trajectory: is told each trajectory as it ends.
        inputs: problem -> the graph's input, where it is not a list of messages.
        answer_of: the graph's final state -> the answer, where it is not the last message's text.

    A rollout that fails is recorded with its error and no reward, and the others go on. A grader
    that fails raises (`GradingError`): nothing is scored 0 for want of a score.

    Raises:
        BudgetError: the experts' budget was spent. The rollouts that needed no more of it have
            ended and been told to `on_trajectory`; the others have left nothing.
        EngineLostError: the policy's engine is gone. Again the others have ended.
    """
    stopped: list[BudgetError | EngineLostError] = []
    how = _How(graph, policy, format_reward if scored else None, answer_of)
    num_rollouts = sum(len(plan.rollouts) for plan in plans_P)
    with policy.engine.cohort(num_rollouts) as cohort:

        async def one(plan: RolloutPlan, rollout: int) -> Trajectory | None:
            problem = plan.problem
            context = RolloutContext(
                problem_id=problem.id,
                seed=seed,
                rollout=rollout,
                global_step=global_step,
                rho=plan.rho,
                solo=rollout < plan.num_solo,
            )
            given: Any = (
                inputs(problem)
                if inputs
                else {"messages": first_messages(system_prompt, problem.question, examples)}
            )
            try:
                trajectory = await _run_one(how, problem, context, given)
            except (BudgetError, EngineLostError) as error:
                stopped.append(error)
                return None
            finally:
                cohort.finished()
            on_trajectory(trajectory)
            return trajectory

        async with asyncio.TaskGroup() as tasks:
            running_PG = [
                [tasks.create_task(one(plan, rollout)) for rollout in plan.rollouts]
                for plan in plans_P
            ]
    if stopped:
        raise stopped[0]
    return [
        RolloutGroup(
            problem=plan.problem,
            trajectories_G=tuple(t for task in running_G if (t := task.result()) is not None),
        )
        for plan, running_G in zip(plans_P, running_PG, strict=True)
    ]


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


@dataclass(frozen=True, slots=True)
class _How:
    """What all rollouts of a call share."""

    graph: AnyGraph
    policy: PolicyChatModel
    format_reward: float | None
    """None: trajectories stay unscored."""
    answer_of: Callable[[Any], str | None] | None


async def _run_one(how: _How, problem: Problem, context: RolloutContext, given: Any) -> Trajectory:
    started = time.perf_counter()
    policy = how.policy
    facts: dict[str, Any] = {
        "problem": problem,
        "graph": Role.SOLO.value if context.solo else how.graph.name,
        "role": Role.SOLO if context.solo else Role.of_graph(how.graph.name),
        "policy": policy.engine.policy_version,
        "sampling": policy.sampling,
        "seed": context.seed,
        "rollout": context.rollout,
        "global_step": context.global_step,
    }
    key = RolloutKey(
        seed=context.seed,
        problem_id=problem.id,
        step=context.global_step,
        rollout=context.rollout,
        turn=0,
    )
    try:
        with recording(key) as recorder:
            state = await how.graph.ainvoke(given, context=context)
        if isinstance(state, Mapping) and INTERRUPTS in state:
            raise UsageError("The graph waits for a person, and a rollout has nobody to ask.")
        base = policy.engine.policy_version.base  # a graph may call other models of ours too
        own = [record for record in recorder.records if record.policy.base == base]
        if not own:
            raise UsageError("The graph never called the policy.")
        facts["policy"] = own[0].policy
        turns = turns_of(
            messages_in(state), recorder.records, policy=own[0].policy, sampling=policy.sampling
        )
        reason, answer = _outcome(state, turns, how.answer_of)
    except (BudgetError, EngineLostError):
        raise
    except Exception as error:  # a bad rollout is data: the group goes on without it
        return Trajectory(
            **facts,
            turns=(),
            stop_reason=StopReason.ERROR,
            answer=None,
            reward=None,
            correct=None,
            error=redact(f"{type(error).__name__}: {error}"),
            duration_s=time.perf_counter() - started,
        )
    reward, correct = await _scored(answer, problem, how.format_reward)
    return Trajectory(
        **facts,
        turns=turns,
        stop_reason=reason,
        answer=answer,
        reward=reward,
        correct=correct,
        error=None,
        duration_s=time.perf_counter() - started,
    )


async def _scored(
    answer: str | None, problem: Problem, format_reward: float | None
) -> tuple[float | None, bool | None]:
    if format_reward is None:
        return None, None
    if problem.grader.removesuffix(LENIENT) in SLOW:  # not in the loop that serves other rollouts
        return await asyncio.to_thread(score_text, answer, problem, format_reward=format_reward)
    return score_text(answer, problem, format_reward=format_reward)


def _outcome(
    state: Any, turns: Sequence[Turn], answer_of: Callable[[Any], str | None] | None
) -> tuple[StopReason, str | None]:
    """Why the run ended, and its answer."""
    if isinstance(state, Mapping) and "stop_reason" in state and answer_of is None:
        reason = StopReason(state["stop_reason"])
        return reason, parse_turn(turns[-1].text).content if reason is StopReason.ANSWERED else None
    messages = messages_in(state)
    answer = answer_of(state) if answer_of else messages[-1].text if messages else None
    if answer and answer.strip():
        return StopReason.ANSWERED, str(answer)
    cut_off = turns[-1].finish_reason == "length"
    return StopReason.LENGTH if cut_off else StopReason.EMPTY, None
