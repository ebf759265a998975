"""Classes and functions of the standard library cross by name, from a list of modules."""

from __future__ import annotations

import importlib
import types
from typing import Any

_MODULES = frozenset(
    {
        *("builtins", "math", "cmath", "operator", "collections", "collections.abc", "datetime"),
        *("decimal", "fractions", "functools", "itertools", "string", "statistics", "json", "re"),
        *("json.decoder", "enum", "typing", "abc", "io", "uuid", "pathlib", "asyncio", "queue"),
        *("asyncio.exceptions", "asyncio.events", "asyncio.locks", "dataclasses", "types"),
        *("heapq", "bisect", "copy", "random", "time", "struct", "zoneinfo", "threading"),
        *("concurrent.futures", "concurrent.futures._base", "numpy", "contextlib", "_operator"),
        *("_io", "_heapq", "_bisect", "_collections", "_functools", "_random", "_struct"),
        *("_queue", "_decimal"),
    }
)
_FORBIDDEN = frozenset(
    {
        *("eval", "exec", "compile", "__import__", "open", "exit", "quit", "breakpoint"),
        *("globals", "setattr", "delattr", "vars"),
    }
)


def name_of(value: Any) -> list[str] | None:
    """Return the module and the name of a class or function of the standard library."""
    if value is Ellipsis or value is NotImplemented:
        return ["builtins", str(value)]
    if isinstance(value, types.ModuleType):
        return [value.__name__, ""]
    if not isinstance(value, type | types.BuiltinFunctionType | types.FunctionType):
        return None
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    try:
        return [str(module), name] if named(str(module), name) is value else None
    except (ValueError, AttributeError):
        return None


def named(module: str, name: str) -> Any:
    """Return what `name_of` names.

    Raises:
        ValueError: it is not of the modules that may be named.
    """
    if module not in _MODULES or name in _FORBIDDEN:
        raise ValueError("not a name that crosses")
    found: Any = importlib.import_module(module)
    if name:
        found = found.__dict__.get(name, None)
        kinds = (type, types.BuiltinFunctionType, types.FunctionType)
        if not isinstance(found, kinds) and found not in (Ellipsis, NotImplemented):
            raise ValueError("not a name that crosses")
    return found
