"""The one interface behind which policy engines live: token ids in, token ids and logprobs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from eapo_agents.types import PolicyVersion, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutKey:
    """Names one completion for ever: its random numbers are a function of this alone."""

    seed: int
    problem_id: str
    step: int
    rollout: int
    turn: int


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
        """Announces rollouts that run together, so that their requests can share batches."""
        ...


class Cohort(Protocol):
    """Rollouts that run together."""

    def finished(self) -> None:
        """One rollout of the cohort is over and sends no more requests."""
        ...
