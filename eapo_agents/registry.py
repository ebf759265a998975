"""What a recipe or a command names: a short name that we know, or `package.module:object`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Generic, TypeVar

from eapo_agents.errors import UsageError

T = TypeVar("T")


class Registry(Generic[T]):
    """Objects of one kind, found by name and imported when they are asked for."""

    def __init__(
        self,
        what: str,
        known: Mapping[str, object],
        *,
        accept: Callable[[object], T | None],
        rule: str,
        error: type[UsageError] = UsageError,
    ) -> None:
        """Take the known names.

        Args:
            what: the kind, for messages: "graph".
            known: short name -> "module:object", or the object.
            accept: the found object as a T, or None where it is not one.
            rule: what an object must be, for messages: "a function of (policy) or (policy, tools)".
            error: what is raised.
        """
        self.what = what
        self._known = dict(known)
        self._accept = accept
        self._rule = rule
        self._error = error

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def find(self, name: str) -> T:
        """Return the object of that name.

        Raises:
            UsageError: the name is unknown, cannot be imported, or is something else.
        """
        if name not in self._known and ":" not in name:
            raise self._error(
                f"Unknown {self.what} '{name}'. {did_you_mean(name, self._known)}"
                f"Known: {', '.join(sorted(self._known))}; or name your own as "
                "package.module:object."
            )
        found = self._known.get(name, name)
        if isinstance(found, str):
            found = import_object(found, what=self.what, error=self._error)
        accepted = self._accept(found)
        if accepted is None:
            raise self._error(
                f"The {self.what} '{name}' must be {self._rule}, and it is {describe(found)}."
            )
        return accepted


def import_object(name: str, *, what: str, error: type[UsageError] = UsageError) -> object:
    """Import `package.module:object`; the object may be an attribute of an attribute.

    Raises:
        UsageError: the module cannot be imported, or has no such object.
    """
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise error(f"The {what} '{name}' must be written as package.module:object.")
    try:
        found: object = import_module(module_name)
    except Exception as failure:  # a user's module may raise anything
        missing = isinstance(failure, ModuleNotFoundError) and failure.name == module_name
        hint = " Modules are found in the working folder and on PYTHONPATH." if missing else ""
        raise error(
            f"The {what} '{name}' cannot be imported: {type(failure).__name__}: {failure}.{hint}"
        ) from failure
    for part in path.split("."):
        if not hasattr(found, part):
            names = [known for known in vars(found) if not known.startswith("_")]
            raise error(
                f"The {what} '{name}' is not there: '{module_name}' has no '{path}'. "
                f"{did_you_mean(path, names)}".rstrip()
            )
        found = getattr(found, part)
    return found


def name_of(function: Callable[..., object]) -> str:
    """Return the name by which a function is imported again.

    Raises:
        UsageError: there is none, as for a function that another function made.
    """
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        found = import_object(name, what="function")
    except UsageError:
        found = None
    if found is not function:
        raise UsageError(
            f"A recipe names its functions, so that a run can be continued, and '{name}' is not "
            "the name of the one given: define it at the top of a module."
        )
    return name


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "Did you mean 'x'? " for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{near[0]}'? " if near else ""


def describe(found: object) -> str:
    """Return what an object is, for a message."""
    if isinstance(found, type):
        return f"the class {found.__name__}"
    name = getattr(found, "__name__", None)
    return f"the function {name}" if callable(found) and name else f"a {type(found).__name__}"
