"""Runs graphs on problems and turns what happened into trajectories."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from eapo_agents.policy.chat_model import RECORD, PolicyChatModel
from eapo_agents.policy.engine import Cohort
from eapo_agents.policy.tool_calls import parse_turn
from eapo_agents.rewards import score_text
from eapo_agents.types import (
    Consultation,
    ConsultationStatus,
    Problem,
    RolloutGroup,
    StopReason,
    Trajectory,
    Turn,
)
from graphs.consult import Graph
from graphs.state import RolloutContext


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlan:
    """Which rollouts of one problem to run."""

    problem: Problem
    rollouts: Sequence[int]
    """Indices within the group."""


async def run_group(
    graph: Graph,
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
    graph: Graph,
    policy: PolicyChatModel,
    plans_P: Sequence[RolloutPlan],
    *,
    system_prompt: str,
    seed: int,
    global_step: int = 0,
    format_reward: float = 0.1,
    examples: Sequence[tuple[str, str]] = (),
    on_trajectory: Callable[[Trajectory], None] = lambda trajectory: None,
) -> list[RolloutGroup]:
    """Runs every planned rollout at once, in one cohort of the engine, and scores what came out.

    `examples` are questions and answers that stand before the problem in every prompt;
    `on_trajectory` is told each trajectory as it ends.

    A rollout that fails is recorded with its error and no reward, and the others go on. A grader
    that fails raises (`GradingError`): nothing is scored 0 for want of a score.
    """
    num_rollouts = sum(len(plan.rollouts) for plan in plans_P)
    with policy.engine.cohort(num_rollouts) as cohort:

        async def one(problem: Problem, rollout: int) -> Trajectory:
            context = RolloutContext(
                problem_id=problem.id, seed=seed, rollout=rollout, global_step=global_step
            )
            messages = first_messages(system_prompt, problem.question, examples)
            trajectory = await _run_one(
                graph, policy, problem, context, cohort, messages, format_reward
            )
            on_trajectory(trajectory)
            return trajectory

        async with asyncio.TaskGroup() as tasks:
            running_PG = [
                [tasks.create_task(one(plan.problem, rollout)) for rollout in plan.rollouts]
                for plan in plans_P
            ]
    return [
        RolloutGroup(
            problem=plan.problem, trajectories_G=tuple(task.result() for task in running_G)
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


async def _run_one(
    graph: Graph,
    policy: PolicyChatModel,
    problem: Problem,
    context: RolloutContext,
    cohort: Cohort,
    messages: Sequence[AnyMessage],
    format_reward: float,
) -> Trajectory:
    started = time.perf_counter()
    facts: dict[str, Any] = {
        "problem": problem,
        "graph": graph.name,
        "policy": policy.engine.policy_version,
        "sampling": policy.sampling,
        "seed": context.seed,
        "rollout": context.rollout,
        "global_step": context.global_step,
    }
    try:
        state = await graph.ainvoke({"messages": list(messages)}, context=context)
    except Exception as error:  # a bad rollout is data: the group goes on without it
        return Trajectory(
            **facts,
            turns=(),
            stop_reason=StopReason.ERROR,
            answer=None,
            reward=None,
            correct=None,
            error=f"{type(error).__name__}: {error}",
            duration_s=time.perf_counter() - started,
        )
    finally:
        cohort.finished()
    turns = turns_of(state["messages"])
    reason = StopReason(state["stop_reason"])
    answer = parse_turn(turns[-1].text).content if reason is StopReason.ANSWERED else None
    reward, correct = score_text(answer, problem, format_reward=format_reward)
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


def turns_of(messages: Sequence[BaseMessage]) -> tuple[Turn, ...]:
    """Reads the turns off the messages of a run: every message that a policy of ours wrote, in
    order."""
    records: list[Mapping[str, Any]] = []
    consultations: list[list[Consultation]] = []
    for message in messages:
        if isinstance(message, AIMessage) and RECORD in message.additional_kwargs:
            records.append(message.additional_kwargs[RECORD])
            consultations.append([])
        elif isinstance(message, ToolMessage) and consultations and message.artifact:
            consultations[-1].append(_consultation(message.artifact))
    index_of = {record["digest"]: index for index, record in enumerate(records)}
    return tuple(
        Turn(
            context_ids=tuple(record["context_ids"]),
            completion_ids=tuple(record["completion_ids"]),
            logprobs=None if record["logprobs"] is None else tuple(record["logprobs"]),
            parent=index_of.get(record["parent"]),
            text=record["text"],
            finish_reason=record["finish_reason"],
            consultations=tuple(asked),
        )
        for record, asked in zip(records, consultations, strict=True)
    )


def _consultation(artifact: Mapping[str, Any]) -> Consultation:
    return Consultation(**{**artifact, "status": ConsultationStatus(artifact["status"])})
