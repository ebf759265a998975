"""The base of every recipe section: a frozen pydantic model that refuses what it does not know."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from eapo_agents.errors import UsageError
from eapo_agents.registry import did_you_mean


def _finite(value: object, key: str = "") -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{key}' must be a finite number, got {value}")
    for name, item in value.items() if isinstance(value, Mapping) else ():
        _finite(item, f"{key}.{name}" if key else str(name))
    for item in value if isinstance(value, list) else ():
        _finite(item, key)
    return value


Options = Annotated[dict[str, object], AfterValidator(_finite)]
"""Settings whose keys somebody else decides: an expert's kind, a graph, TRL."""


OwnFunction = Annotated[str, Field(pattern=r"^[\w.]+:[\w.]+$")]
"""`package.module:function`."""


class Settings(BaseModel):
    """Settings that a recipe gives as a section and code gives by keyword."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, **given: object) -> None:
        """Take settings by keyword.

        Raises:
            UsageError: one sentence that names the setting, the rule and what was given.
        """
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise UsageError(f"In {type(self).__name__}, {explain(error, type(self))}") from error

    # Within a recipe pydantic fills a section without a call to __init__, so that the error names
    # the key from the top. This flag is how pydantic marks its own __init__.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def explain(error: ValidationError, model: type[object]) -> str:
    """Return the first thing that is wrong, as a sentence that names the key."""
    # a misspelt key is also a missing one: what was written helps more than what was not
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    unknown = first["type"] in ("extra_forbidden", "unexpected_keyword_argument")
    key = ".".join(str(part) for part in first["loc"])
    if unknown:
        known = known_keys(model, first["loc"][:-1])
        near = did_you_mean(str(first["loc"][-1]), known).strip()
        hint = near.replace("Did", "did") or f"known here: {', '.join(known)}."
        return f"there is no key '{key}': {hint}"
    where = f"'{key}': " if key else ""
    given = "" if isinstance(first["input"], dict | BaseModel) else f", got {first['input']!r}"
    return f"{where}{first['msg'].removeprefix('Value error, ').rstrip('.')}{given}."


def known_keys(model: type[object], location: Iterable[int | str]) -> list[str]:
    """Return the keys of the section at a place of a model, sorted."""
    section = model
    for part in location:
        section = section_of(fields_of(section).get(str(part), section)) or section
    return sorted(fields_of(section))


def section_of(annotation: object) -> type[object] | None:
    """Return the section that a field's type holds, be it optional, in a list or in a mapping."""
    if isinstance(annotation, type) and fields_of(annotation):
        return annotation
    return next((found for arg in get_args(annotation) if (found := section_of(arg))), None)


def fields_of(section: type[object]) -> dict[str, object]:
    """Return a section's keys with their types; none where it is not a section."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}
