"""Learns the keys that recipes name, so that no page shows one."""

from __future__ import annotations

from collections.abc import Mapping

from eapo_agents.errors import UsageError
from eapo_agents.secrets import read_key


def learn_keys(recipe: Mapping[str, object]) -> None:
    """Read the keys that a recipe names, where they are set: `redact` then takes them out."""
    for variable in _key_variables(recipe):
        try:
            read_key(variable, wanted_by="the view")
        except UsageError:
            continue  # it is not set here, so no text can be compared with it


def _key_variables(part: object) -> list[str]:
    if isinstance(part, Mapping):
        named = [
            value
            for key, value in part.items()
            if str(key).endswith("key_env") and isinstance(value, str)
        ]
        return named + [name for value in part.values() for name in _key_variables(value)]
    if isinstance(part, list | tuple):
        return [name for value in part for name in _key_variables(value)]
    return []
