"""One tree of errors, named by the boundary that was crossed.

Every message says what is wrong, the rule, what was found and what to do next. The `eapo` command
prints the message as one line and exits with `exit_code`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from eapo_agents.experts.usage import Usage


class EapoError(Exception):
    """Base of every error that this project raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(EapoError):
    """The caller gave something unusable: a wrong flag, file or value."""

    exit_code: ClassVar[int] = 2


class RecipeError(UsageError):
    """A recipe that cannot be read, or has a wrong key or value."""


class ModelError(UsageError):
    """A model that cannot be found or loaded."""


class StoreError(UsageError):
    """A trace store that cannot be read or written, or is of another format."""


class TaskError(UsageError):
    """Problems that cannot be read."""


class BenchmarkError(UsageError):
    """Benchmark problems, or predictions for them, that cannot be obtained, read or matched."""


class TraceError(UsageError):
    """Traces that must not be trained on: without logprobs, of another model or temperature, or too
    old."""


class DoctorError(EapoError):
    """The doctor found a blocking problem in a trace set."""

    exit_code: ClassVar[int] = 5


class ErrorBudgetError(EapoError):
    """The work is done, but more rollouts failed than the recipe allows."""

    exit_code: ClassVar[int] = 3


class ExpertError(EapoError):
    """An expert failed. Inside a graph the error becomes a message to the policy."""

    usage: Usage | None = None
    """What the failed call was billed; None if nothing is known about that."""


class TransientExpertError(ExpertError):
    """A transient failure: too many requests, a server error, a lost connection."""

    def __init__(
        self, message: str, retry_after_s: float | None = None, *, rate_limited: bool = False
    ) -> None:
        """Say what failed.

        Args:
            retry_after_s: how long the service asked us to wait, if it did.
            rate_limited: whether it said that it gets too many requests (HTTP 429).
        """
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.rate_limited = rate_limited


class ExpertSetupError(ExpertError):
    """A failure that every call would share: a wrong key, or a model that the service does not
    have."""


class ExpertDownError(ExpertError):
    """Every endpoint has failed too often: none gets calls for a while."""


def says_down(error: BaseException) -> bool:
    """Return whether a failed call says that its endpoint does not work. One that gets too many
    requests (HTTP 429) does."""
    if isinstance(error, TransientExpertError):
        return not error.rate_limited
    return isinstance(error, ExpertSetupError)


class BudgetError(EapoError):
    """The budget for experts and for an API model is spent. Finished work is kept, and the same
    command continues with a larger budget."""

    exit_code: ClassVar[int] = 4


class RolloutTimeoutError(EapoError):
    """A rollout took longer than the recipe allows. It is recorded as failed."""


class SandboxError(UsageError):
    """Code cannot be isolated here, so it is not run."""


class GradingError(EapoError):
    """A grader failed. That is never turned into a reward of 0."""


class UndecidedError(GradingError):
    """A grader could not decide about one answer, which stays unscored."""


class RewardWarning(UserWarning):
    """A reward failed on an answer, and the rollout is unscored."""


class EngineError(EapoError):
    """A policy engine failed while generating."""


class EngineLostError(EngineError):
    """A policy engine is gone for good, for example because no server answers any longer.

    The rollout that met it is not to blame. Finished rollouts are kept, and the same command
    continues later.
    """


class ServerError(UsageError):
    """A policy server that cannot be used as it is: missing, or with another model or settings."""


def innermost(error: BaseException) -> BaseException:
    """Return the first error inside the groups that task groups raise."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


INFRASTRUCTURE = frozenset(
    {
        # Python, and what is derived from them: requests, redis, psycopg
        "ConnectionError",
        "TimeoutError",
        "gaierror",
        "IncompleteRead",
        # httpx, aiohttp
        "TransportError",
        "ClientConnectionError",
        "ClientPayloadError",
        # the SDKs of OpenAI and Anthropic
        "APIConnectionError",
        "RateLimitError",
        "InternalServerError",
        "OverloadedError",
        # ours
        "TransientExpertError",
        "ServerError",
    }
)
"""Names of the exception classes of a connection or a service that is down or busy; those derived
from them count too."""


def infrastructure_of(error: BaseException) -> str | None:
    """Return the name that makes an error infrastructure's; None where it is not."""
    names = (one.__name__ for one in type(error).__mro__)
    return next((name for name in names if name in INFRASTRUCTURE), None)


def is_full_disk(error: BaseException) -> bool:
    """Return whether an error, of whatever library, says that a disk or a quota is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    return any(words in str(error) for words in _FULL_DISK)


_FULL_DISK = (
    os.strerror(errno.ENOSPC),  # safetensors
    "PytorchStreamWriter failed writing",  # torch.save
    "inline_container.cc",  # torch.save too: it finds less in the file than it has written
)
