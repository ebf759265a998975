"""Runs one LangGraph graph: in a thread of its own, with its context and limits, in time, and until
the policy has nothing left to sample for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig

from eapo_agents.errors import RolloutTimeoutError
from eapo_agents.policy.recording import ROLLOUT, Recorder
from eapo_agents.types import Role
from graphs.state import AnyGraph, RolloutContext, role_of
from graphs.traced import callbacks, metadata_of

RECURSION_LIMIT = 100
"""Steps of a user's graph, unless it has a lower limit itself. LangGraph's own is 10,007: a policy
that asks for ever would have to run out of context."""
_LAST_TURNS_S = 60.0
"""How long a rollout waits for turns that its graph has left behind."""
_LOOK_S = 0.01
T = TypeVar("T")


def invoke(graph: AnyGraph, given: Any, context: RolloutContext) -> Awaitable[Any]:
    """Run a graph in a thread of its own, which a graph with a checkpointer needs."""
    config = config_of(graph, thread_id=uuid4().hex)
    return graph.ainvoke(given, config, context=context_of(graph, context))


def config_of(graph: AnyGraph, thread_id: str) -> RunnableConfig:
    """Return how a graph is run: in this thread, a user's with a limit on its steps."""
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    if role_of(graph) is Role.OWN:
        limit = (graph.config or {}).get("recursion_limit", RECURSION_LIMIT)
        config["recursion_limit"] = min(limit, RECURSION_LIMIT)
    return config


def context_of(graph: AnyGraph, context: RolloutContext) -> Any:
    """Return the context that a graph gets: ours, or one of its own kind, made from its
    defaults."""
    schema = graph.context_schema
    return context if schema is None or schema is RolloutContext else schema()


async def in_whole(graph: AnyGraph, given: Any, context: RolloutContext, recorder: Recorder) -> Any:
    """Run a graph for a recorder, and until the policy has nothing left to sample for it."""
    config = config_of(graph, thread_id=recorder.name)
    # whatever traces the run (LangSmith, OpenTelemetry) can find it by these
    config["metadata"] = {ROLLOUT: recorder.name, **metadata_of(context)}
    if (listening := callbacks()) is not None:
        config["callbacks"] = listening
    marked = _with_ids(given, recorder.name)
    try:
        return await graph.ainvoke(marked, config, context=context_of(graph, context))
    finally:
        until = time.monotonic() + _LAST_TURNS_S
        while recorder.num_sampling and time.monotonic() < until:  # the graph did not wait for it
            await asyncio.sleep(_LOOK_S)
        if recorder.num_sampling:
            recorder.fail(
                "The graph ended while the policy was still sampling for it: wait for each turn."
            )


def _with_ids(given: Any, name: str) -> Any:
    """Return a graph's input with ids on its messages that tell the rollout, for threads that have
    no other way to tell."""
    messages = given.get("messages") if isinstance(given, dict) else None
    if not isinstance(messages, list):
        return given
    marked = [
        message.model_copy(update={"id": f"{name}/{index}"})
        if isinstance(message, BaseMessage) and message.id is None
        else message
        for index, message in enumerate(messages)
    ]
    return {**given, "messages": marked}


async def in_time(work: Awaitable[T], timeout_s: float | None) -> T:
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise  # the graph's own
        raise RolloutTimeoutError(
            f"The rollout took longer than rollouts.rollout_timeout_s ({timeout_s:g} s)."
        ) from error
