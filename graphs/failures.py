"""How a failed rollout is recorded, and whether its cause was the infrastructure: a connection, a
service that is down or busy. Such a rollout says nothing about the policy and runs again."""

from __future__ import annotations

from typing import Literal

from eapo_agents.errors import INFRASTRUCTURE, infrastructure_of, innermost
from eapo_agents.secrets import redact

Retry = Literal["infrastructure", "all", "never"]
"""Which failed rollouts run again when the same command is given again."""


def describe(error: BaseException) -> str:
    """Return what a trajectory's `error` says: the class, the one that makes it infrastructure's
    where that is another, and the message.

    >>> class Down(ConnectionError): ...
    >>> describe(Down("for a minute"))
    'Down (ConnectionError): for a minute'
    """
    error = innermost(error)
    name = type(error).__name__
    known = infrastructure_of(error) or name
    return redact(f"{name}{f' ({known})' if known != name else ''}: {error}")


def is_infrastructure(error: str) -> bool:
    """Return whether a trajectory's `error` names a failure of the infrastructure."""
    name, _, known = error.partition(":")[0].partition(" ")
    return name in INFRASTRUCTURE or known.strip("()") in INFRASTRUCTURE


def runs_again(error: str | None, retry: Retry) -> bool:
    """Return whether a stored rollout is to run again."""
    if error is None or retry == "never":
        return False
    return retry == "all" or is_infrastructure(error)
