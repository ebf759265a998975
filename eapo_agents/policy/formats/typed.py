"""Types the arguments of calls that are written as text, by the tools' schemas."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence

_WORDS = {"True": True, "False": False, "None": None}


def typed_arguments(
    name: str, arguments: Mapping[str, object], tools: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    """Return the arguments with the types of their tool's schema. Without a schema, a value that
    is JSON but no string is one."""
    schemas = _schemas(name, tools)
    return {
        key: _typed(value, schemas.get(key)) if isinstance(value, str) else value
        for key, value in arguments.items()
    }


def _schemas(name: str, tools: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            found = parameters.get("properties") if isinstance(parameters, Mapping) else None
            return found if isinstance(found, Mapping) else {}
    return {}


def _typed(text: str, schema: object) -> object:
    kinds = _kinds(schema)
    if "null" in kinds and text.strip() in ("null", "None"):
        return None
    if "string" in kinds:
        return text
    if text.strip() in _WORDS:
        return _WORDS[text.strip()]
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        value = _literal(text) if text.lstrip()[:1] in ("[", "{") else text
    return text if isinstance(value, str) else value


def _literal(text: str) -> object:
    try:
        value: object = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def _kinds(schema: object) -> frozenset[str]:
    """Return the JSON types that a schema allows."""
    if not isinstance(schema, Mapping):
        return frozenset()
    given = schema.get("type")
    kinds = {given} if isinstance(given, str) else set(given or ())
    for choice in ("anyOf", "oneOf"):
        for one in schema.get(choice) or ():
            kinds |= _kinds(one)
    if not kinds and schema.get("enum"):
        kinds = {"string" if isinstance(one, str) else "other" for one in schema["enum"]}
    return frozenset(str(kind) for kind in kinds)
