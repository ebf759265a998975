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
    """A trace store that cannot be read or written, or is of a newer format."""


class TaskError(UsageError):
    """Problems that cannot be read."""


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


class GradingError(EapoError):
    """A grader failed: never turned into a reward of 0."""


class EngineError(EapoError):
    """A policy engine failed while generating."""
