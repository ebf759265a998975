"""The options of environments that run elsewhere, checked; and what such an environment says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eapo_agents.errors import TaskError
from eapo_agents.secrets import redact

_MAX_SAID = 400
"""Characters of somebody else's words in a sentence of ours."""
_LEAST = {"size": 1, "seed": 0}


def read_options(
    name: str, options: Mapping[str, Any], defaults: Mapping[str, Any], *, inner: str
) -> dict[str, Any]:
    """Return a task's options with the defaults of those that are not given.

    Args:
        name: the task's, for messages.
        defaults: all options that there are. `size` and `seed` are integers, `solved` a number
            above 0, and a mapping stays one.
        inner: the option in which what the environment itself takes stands.

    Raises:
        TaskError: one is unknown or of a wrong kind.
    """
    unknown = [key for key in options if key not in defaults]
    if unknown:
        raise TaskError(
            f"task.options of '{name}' are {', '.join(defaults)}, and it has '{unknown[0]}': what "
            f"the environment itself takes stands in {inner}."
        )
    found = {**defaults, **options}
    for key in found.keys() & _LEAST.keys():
        value, least = found[key], _LEAST[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise TaskError(
                f"task.options.{key} of '{name}' must be an integer from {least}, got {value!r}."
            )
    solved = found["solved"]
    if isinstance(solved, bool) or not isinstance(solved, int | float) or solved <= 0:
        raise TaskError(f"task.options.solved of '{name}' must be above 0, got {solved!r}.")
    if not isinstance(found[inner], Mapping):
        raise TaskError(f"task.options.{inner} of '{name}' is a mapping, got {found[inner]!r}.")
    return found


def said(what: object) -> str:
    """Return somebody else's words on one line, without keys, and not too many."""
    line = " ".join(redact(str(what)).split()) or type(what).__name__
    return line if len(line) <= _MAX_SAID else f"{line[:_MAX_SAID]} ..."
