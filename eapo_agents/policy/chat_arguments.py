"""Arguments of a call of the policy, by LangChain's names: followed, or refused, never ignored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from eapo_agents.types import Sampling

_NOTES = {"ls_structured_output_format", "stream"}
"""What LangChain itself adds to a call, without effect on what is sampled."""
_FOLLOWED = {"temperature": "temperature", "top_p": "top_p", "max_tokens": "max_new_tokens"}


def sampling_of(
    own: Sampling, arguments: Mapping[str, object], stop: Sequence[str] | None
) -> Sampling:
    """Return how a call is to be sampled. A None stands for the model's own setting.

    Raises:
        ValueError: an argument would change the sampling of another chat model and is not followed
            here, or its value is not allowed.
    """
    if stop:
        raise ValueError("Stop strings would cut between tokens: the policy ends its turns itself.")
    unknown = sorted(set(arguments) - _NOTES - set(_FOLLOWED))
    if unknown:
        raise ValueError(
            f"The policy does not take {', '.join(unknown)} with a call, but only "
            f"{', '.join(_FOLLOWED)}: set the rest in the recipe's section `sampling` "
            "(in Python: PolicyChatModel(sampling=...))."
        )
    given = {
        field: _allowed(name, arguments[name])
        for name, field in _FOLLOWED.items()
        if arguments.get(name) is not None
    }
    return replace(own, **given) if given else own  # type: ignore[arg-type]  # checked above


def _allowed(name: str, value: object) -> float | int:
    whole = name == "max_tokens"
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if number:
        assert isinstance(value, int | float)
        low_enough = value <= 1 if name == "top_p" else math.isfinite(value)
        if low_enough and (value >= 0 if name == "temperature" else value > 0):
            return value if whole else float(value)
    rule = {
        "temperature": "a number from 0",
        "top_p": "a number above 0, at most 1",
        "max_tokens": "a whole number from 1",
    }[name]
    raise ValueError(f"{name} must be {rule}, got {value!r}.")
