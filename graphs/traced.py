"""A rollout as one run for whoever traces: LangChain's callback handlers, LangSmith, OpenTelemetry.

A graph's own run ends before its answer is scored, so its trace cannot have the reward. Around it
there is a run `eapo_rollout`: it begins with the problem, the rollout and the step, and ends with
the reward. Where nobody traces there is no such run.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForChainRun
from langchain_core.callbacks.base import Callbacks
from langchain_core.runnables.config import ensure_config, merge_configs

from eapo_agents.secrets import redact
from eapo_agents.types import Trajectory
from graphs.state import AnyGraph, RolloutContext

NAME = "eapo_rollout"
"""Name of the run, and the tag of everything in it."""
_CALLBACKS: ContextVar[AsyncCallbackManager | None] = ContextVar("eapo_callbacks", default=None)


def metadata_of(context: RolloutContext) -> dict[str, object]:
    """Return what names a rollout in a trace."""
    return {
        "eapo_problem_id": context.problem_id,
        "eapo_rollout_index": context.rollout,
        "eapo_step": context.global_step,
        "eapo_seed": context.seed,
        "eapo_solo": context.solo,
    }


def callbacks() -> Callbacks:
    """Return what the graph of the present rollout reports to; None where nobody traces it."""
    return _CALLBACKS.get()


class Traced:
    """The run around one rollout: an asynchronous context manager."""

    def __init__(self, graph: AnyGraph, context: RolloutContext) -> None:
        self._graph, self._context = graph, context
        self._run: AsyncCallbackManagerForChainRun | None = None
        self._outcome: Mapping[str, object] = {}

    async def __aenter__(self) -> Traced:
        """Begin the run where a handler of the user's or a tracer listens."""
        manager = _manager(self._graph, metadata_of(self._context))
        if manager.handlers:
            given = {"problem_id": self._context.problem_id}
            self._run = await manager.on_chain_start(None, given, name=NAME)
            self._token = _CALLBACKS.set(self._run.get_child())
        return self

    def ended(self, trajectory: Trajectory) -> Trajectory:
        """Take note of what became of the rollout, and return it."""
        self._outcome = outcome_of(trajectory)
        return trajectory

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """End the run, with the outcome or with what the rollout raised."""
        if self._run is None:
            return
        _CALLBACKS.reset(self._token)
        if error is not None:
            await self._run.on_chain_error(error)
        else:
            await self._run.on_chain_end(self._outcome)


def outcome_of(trajectory: Trajectory) -> dict[str, object]:
    """Return a rollout's outcome as a trace has it. The reward is None where nothing was scored:
    evaluations grade later, from what was stored."""
    parts = trajectory.reward_parts or {}
    return {
        "reward": trajectory.reward,
        "correct": trajectory.correct,
        **{f"reward/{name}": value for name, value in parts.items()},
        "stop_reason": trajectory.stop_reason.value,
        "turns": len(trajectory.turns),
        "error": None if trajectory.error is None else redact(trajectory.error),
    }


def _manager(graph: AnyGraph, metadata: Mapping[str, Any]) -> AsyncCallbackManager:
    """Return a manager of all that listens: handlers that the graph was given, those of whoever
    calls us, and tracers that the environment switches on."""
    bound = (graph.config or {}).get("callbacks")
    config = merge_configs(
        {"callbacks": ensure_config().get("callbacks")}, {"callbacks": bound} if bound else {}
    )
    return AsyncCallbackManager.configure(
        inheritable_callbacks=config.get("callbacks"),
        inheritable_tags=[NAME],
        inheritable_metadata=dict(metadata),
    )
