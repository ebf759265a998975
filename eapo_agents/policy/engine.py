"""The one interface behind which policy engines live: token ids in, token ids and logprobs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from eapo_agents.types import PolicyVersion, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutKey:
    """Names one completion for ever: its random numbers are a function of this alone."""

    seed: int
    problem_id: str
    step: int
    rollout: int
    turn: int
    branch: int = 0
    """Tells apart what a graph asks for in parallel; 0 where turns follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine sampled."""

    completion_ids: tuple[int, ...]
    """Includes the end-of-turn token where the policy wrote one."""
    logprobs: tuple[float, ...] | None
    finish_reason: str
    """`stop` or `length`."""
    policy: PolicyVersion
    """The weights that sampled it."""


class Engine(Protocol):
    """Turns a prompt of token ids into sampled token ids."""

    @property
    def policy_version(self) -> PolicyVersion:
        """The weights that the next completion is sampled from."""
        ...

    async def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        key: RolloutKey,
        *,
        on_token: Callable[[int], None] | None = None,
    ) -> Completion:
        """Samples one completion. May be called from any event loop, many at once.

        `on_token` is told each token as it is sampled, in whichever thread samples it. Cancelling
        stops the sampling soon.

        Raises:
            EngineError: the engine failed; the message says how.
        """
        ...

    def cohort(self, num_rollouts: int) -> AbstractContextManager[Cohort]:
        """Announce rollouts that are about to send requests, so that a batch waits for those that
        it can have. Whoever starts one rollout when another ends enters the new one first: in
        between, a batch would start without it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLoad:
    """How busy an engine is."""

    waiting: int
    """Requests in its queue."""
    cache_used: float
    """Share of its key-value cache that is in use, from 0 to 1."""


@runtime_checkable
class MeasuredEngine(Engine, Protocol):
    """An engine that tells how much it can take at once."""

    @property
    def max_batch_size(self) -> int | None:
        """Requests that make a full batch; None where that changes with the load."""
        ...

    async def load(self) -> EngineLoad | None:
        """Return how busy it is, None where that is not known."""
        ...


class Cohort(Protocol):
    """Rollouts that run together."""

    def finished(self) -> None:
        """One rollout of the cohort is over and sends no more requests."""
        ...


class NoCohort:
    """The cohort of an engine whose requests do not wait for one another."""

    def finished(self) -> None:
        """Do nothing."""
