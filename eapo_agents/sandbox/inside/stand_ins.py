"""Stands for objects that are in the other process: their methods run there.

`RemoteClass` makes the class of stand-ins for one class of the other side. It has the special
methods which that class has, so `len`, `for`, `with`, `callable` and the like behave as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from objects import Peer

COMPARISONS = frozenset(f"__{name}__" for name in ("eq", "ne", "lt", "le", "gt", "ge"))
_BINARY = (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "divmod"),
    *("pow", "matmul", "lshift", "rshift", "and", "xor", "or"),
)
ARITHMETIC = frozenset(f"__{side}{name}__" for name in _BINARY for side in ("", "r", "i"))
_UNARY = (
    *("call", "len", "iter", "next", "reversed", "contains", "getitem", "setitem", "delitem"),
    *("bool", "hash", "str", "repr", "format", "enter", "exit", "int", "float", "index", "complex"),
    *("abs", "neg", "pos", "invert", "round", "trunc", "floor", "ceil", "length_hint", "bytes"),
    *("aenter", "aexit", "aiter", "anext", "await", "missing", "fspath"),
)
SPECIALS = (*COMPARISONS, *ARITHMETIC, *(f"__{name}__" for name in _UNARY))
_OWN = frozenset({"_eapo_id", "_eapo_peer", "_eapo_class"})


class RemoteClass(type):
    """A class of the other side: called there, with its attributes there."""

    _eapo_peer: Peer
    _eapo_class: int

    def __call__(cls, *args: Any, **named: Any) -> Any:
        if "_eapo_class" in cls.__dict__:
            return cls._eapo_peer.ask("call", cls, args, tuple(named.items()))
        return super().__call__(*args, **named)  # a class of this side that derives from it

    def __getattr__(cls, name: str) -> Any:
        if name in _OWN or name.startswith("__abstract"):
            raise AttributeError(name)
        return cls._eapo_peer.ask("get", cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in _OWN or "_eapo_class" not in cls.__dict__:
            return super().__setattr__(name, value)
        cls._eapo_peer.ask("set", cls, name, value)

    def __iter__(cls) -> Any:  # an Enum
        return iter(cls._eapo_peer.ask("items", cls))

    def __len__(cls) -> int:
        return len(cls._eapo_peer.ask("items", cls))

    def __getitem__(cls, key: Any) -> Any:
        return cls._eapo_peer.ask("item", cls, key)

    def __bool__(cls) -> bool:
        return True


class Remote(metaclass=RemoteClass):
    """An object of the other side."""

    _eapo_id: int

    def __init__(self, *args: Any, **named: Any) -> None:
        made = next(c for c in type(self).__mro__ if "_eapo_class" in c.__dict__)
        object.__setattr__(self, "_eapo_id", made(*args, **named)._eapo_id)

    def __getattr__(self, name: str) -> Any:
        if name in _OWN:
            raise AttributeError(name)
        if name == "_is_coroutine":  # what asyncio looks at
            if type(self)._eapo_peer.ask("is_async", self):
                return sys.modules["asyncio"].coroutines._is_coroutine
            raise AttributeError(name)
        return type(self)._eapo_peer.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        type(self)._eapo_peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        type(self)._eapo_peer.ask("delete", self, name)

    def __copy__(self) -> Any:
        return type(self)._eapo_peer.ask("copy", self, False)

    def __deepcopy__(self, memo: object) -> Any:
        return type(self)._eapo_peer.ask("copy", self, True)


def make_class(
    peer: Peer, number: int, name: str, bases: tuple[type, ...], specials: list[str], plain: str
) -> type:
    """Return the class of stand-ins for the other side's class.

    Args:
        plain: `list`, `dict` or `set` where it is a subclass of one.
    """
    body: dict[str, Any] = {"__slots__": ()} if not _is_error(bases) else {}
    body["_eapo_peer"], body["_eapo_class"] = peer, number
    for special in specials:
        if special in SPECIALS:
            body[special] = _forwarding(peer, special, plain)
    if "__eq__" in body and "__hash__" not in body:
        body["__hash__"] = None
    if name == "function":
        body["__doc__"] = property(lambda self: peer.ask("get", self, "__doc__"))
    if plain:
        kind = {"list": list, "dict": dict, "set": set}[plain]
        body["__class__"] = property(lambda self: kind)
    if not any(isinstance(base, RemoteClass) for base in bases):
        bases = (*(b for b in bases if b is not object), Remote)
        if _is_error(bases):
            body["__init__"] = lambda self, *args, **named: None
    return RemoteClass(name, bases, body)


def _is_error(bases: tuple[type, ...]) -> bool:
    return any(issubclass(base, BaseException) for base in bases)


def _forwarding(peer: Peer, name: str, plain: str) -> Callable[..., Any]:
    def forward(self: Any, *args: Any) -> Any:
        if name == "__call__":
            return peer.ask("call", self, args, ())
        if name in COMPARISONS or name in ARITHMETIC or name == "__contains__":
            return peer.operate(self, name, args[0], plain)
        if name == "__exit__":
            return peer.leave(self, args)
        if name == "__await__":
            return peer.awaited(self).__await__()
        return peer.ask("special", self, name, args)

    def call(self: Any, *args: Any, **named: Any) -> Any:
        return peer.ask("call", self, args, tuple(named.items()))

    return call if name == "__call__" else forward
