"""One tree of errors, named by the boundary that was crossed.

Every message says what is wrong, the rule, what was found and what to do next. The `eapo` command
prints it as one line and exits with `exit_code`.
"""

from typing import ClassVar


class EapoError(Exception):
    """Base of every error that this project raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(EapoError):
    """The caller gave something that cannot be used: bad flags, files, values."""

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
    """Benchmark problems, or predictions for them, that cannot be had, read or matched."""


class TraceError(UsageError):
    """Traces that must not be trained on: no logprobs, another model, another temperature, too
    old."""


class DoctorError(EapoError):
    """The doctor found a blocking problem in a trace set."""

    exit_code: ClassVar[int] = 5


class ErrorBudgetError(EapoError):
    """The work is done, but more rollouts failed than the recipe allows."""

    exit_code: ClassVar[int] = 3


class ExpertError(EapoError):
    """An expert failed; inside a graph it becomes a message to the policy."""


class TransientExpertError(ExpertError):
    """A failure that may pass: too many requests, a server error, a lost connection."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        """`retry_after_s` is how long the service asked to wait, where it did."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ExpertSetupError(ExpertError):
    """A failure that every call would share: a wrong key, a model that the service does not
    have."""


class BudgetError(EapoError):
    """The experts' budget is spent. What was done is kept, and the same command goes on with a
    larger one."""

    exit_code: ClassVar[int] = 4


class SandboxError(UsageError):
    """Code cannot be kept in here, so it is not run."""


class GradingError(EapoError):
    """A grader failed: never turned into a reward of 0."""


class EngineError(EapoError):
    """A policy engine failed while generating."""


class EngineLostError(EngineError):
    """A policy engine is gone for good, as when no server answers any more. It says nothing of the
    rollout that met it: what has ended is kept, and the same command goes on later."""


class ServerError(UsageError):
    """A policy server that cannot be used as it is: not there, another model, other settings."""


def innermost(error: BaseException) -> BaseException:
    """What lies behind groups of errors, as task groups raise them: the first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
