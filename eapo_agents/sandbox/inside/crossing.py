"""How values cross between two processes that share objects (see objects.py).

JSON's own types stand for themselves; every JSON object is a tag with one key: `M` a container that
both sides keep equal, `Y` an object of the receiver's, `O` one of the sender's that was described
before, `K` a class, `I` an object, `E` an exception, `P` a plain value of a subclass, `N` a name of
the standard library, `X` a standard exception, `g`, `a` and `A` an iterator, a coroutine and an
asynchronous generator.
"""

from __future__ import annotations

import builtins
import collections
import datetime
import itertools
import json
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from typing import Any

import values
from names import name_of, named
from stand_ins import COMPARISONS, SPECIALS, Remote, RemoteClass, make_class

_SHARED: dict[type, Callable[[], Any]] = {
    kind: kind
    for kind in (list, dict, set, bytearray, collections.deque, collections.Counter,
                 collections.OrderedDict, collections.defaultdict)
}  # fmt: skip
_NAMES = {kind.__name__: kind for kind in _SHARED}
_DICTS = (dict, collections.Counter, collections.OrderedDict, collections.defaultdict)
_ITERATORS = (*values._ITERATORS, types.GeneratorType)
_PLAIN_TAGS = frozenset("ibcrqmn")
_IMMUTABLE = (int, float, str, tuple, frozenset)
_BATCH = 64


class Crossing(ABC):
    """The tables of what has crossed, and what is written for a value."""

    def __init__(self, number: int) -> None:
        self._numbers = itertools.count(number, 2)
        self._shared: dict[int, Any] = {}
        self._shared_ids: dict[int, int] = {}
        self._texts: dict[int, str] = {}
        self._mine: dict[int, Any] = {}
        self._my_ids: dict[int, int] = {}
        self._theirs: dict[int, Any] = {}
        self._described: set[int] = set()

    @abstractmethod
    def ask(self, what: str, *parts: Any) -> Any:
        """Have the other side do something; return its value, or raise what it raised."""

    @abstractmethod
    async def awaited(self, thing: Any) -> Any:
        """Await something of the other side."""

    def _changes(self) -> tuple[dict[str, Any], list[int]]:
        """Return the containers that have changed here, and those that nobody here has any more."""
        states: dict[str, Any] = {}
        done: set[int] = set()
        dropped = [n for n, thing in self._shared.items() if sys.getrefcount(thing) <= 3]
        while left := [n for n in self._shared if n not in done]:  # encoding may share more
            for n in left:
                done.add(n)
                state = self._state(self._shared[n])
                text = json.dumps(state)
                if self._texts.get(n) != text:
                    self._texts[n] = text
                    states[str(n)] = state
        dropped = [
            n for n in dropped if str(n) not in states and sys.getrefcount(self._shared[n]) <= 3
        ]
        self._drop(dropped)
        return states, dropped

    def _take_changes(self, message: dict[str, Any]) -> None:
        """Make the shared containers what they are on the other side."""
        states = {int(n): state for n, state in message.get("S", {}).items()}
        for n, state in states.items():
            if n not in self._shared:
                self._share(
                    n, _NAMES[state[0]]() if state[0] in _NAMES else values.decode(state[1])
                )
        for n, state in states.items():
            self._fill(self._shared[n], state)
            self._texts[n] = ""
        for n in states:
            self._texts[n] = json.dumps(self._state(self._shared[n]))
        self._drop(message.get("drop", ()))

    def _share(self, number: int, thing: Any) -> None:
        self._shared[number] = thing
        self._shared_ids[id(thing)] = number

    def _drop(self, numbers: Any) -> None:
        for n in numbers:
            thing = self._shared.pop(n, None)
            self._shared_ids.pop(id(thing), None)
            self._texts.pop(n, None)

    def _state(self, thing: Any) -> list[Any]:
        kind = type(thing)
        if kind in _DICTS:
            items = [[self.encode(key), self.encode(item)] for key, item in thing.items()]
            factory = self.encode(getattr(thing, "default_factory", None))
            return [kind.__name__, items, factory]
        if kind is bytearray:
            return [kind.__name__, bytes(thing).hex()]
        if kind in _SHARED:
            items = [self.encode(item) for item in thing]
            return [kind.__name__, items, getattr(thing, "maxlen", None)]
        return ["array", values.encode(thing)]

    def _fill(self, thing: Any, state: list[Any]) -> None:
        if isinstance(thing, bytearray):
            thing[:] = bytes.fromhex(state[1])
        elif isinstance(thing, dict):
            items = [(self.decode(key), self.decode(item)) for key, item in state[1]]
            thing.clear()
            for key, item in items:
                thing[key] = item
            if isinstance(thing, collections.defaultdict):
                thing.default_factory = self.decode(state[2])
        elif isinstance(thing, list):
            thing[:] = map(self.decode, state[1])
        elif isinstance(thing, set):
            _fill_set(thing, [self.decode(item) for item in state[1]])
        elif isinstance(thing, collections.deque):
            items = [self.decode(item) for item in state[1]]
            if state[2] is not None and thing.maxlen != state[2]:
                new = collections.deque(items, state[2])
                thing.__init__(new, state[2])  # type: ignore[misc]
            else:
                thing.clear()
                thing.extend(items)
        else:
            new = values.decode(state[1])
            if new.shape == thing.shape:
                thing[...] = new

    def encode(self, value: Any) -> Any:
        """Return JSON data of a value."""
        kind = type(value)
        if value is None or kind in (bool, str, float):
            return value
        if kind is int or kind in (bytes, complex, range):
            return values.encode(value)
        if kind is tuple or kind is frozenset:
            return {"t" if kind is tuple else "f": [self.encode(item) for item in value]}
        if (n := self._shared_ids.get(id(value))) is not None:
            return {"M": n}
        if kind in _SHARED or _is_array(value):
            n = next(self._numbers)
            self._share(n, value)
            return {"M": n}
        return self._encode_rare(value, kind)

    def _encode_rare(self, value: Any, kind: type) -> Any:
        if kind in (datetime.date, datetime.time, datetime.datetime):
            return {"D": [kind.__name__, value.isoformat()]}
        if kind is datetime.timedelta:
            return {"D": ["timedelta", [value.days, value.seconds, value.microseconds]]}
        if kind.__module__ == "uuid" and kind.__name__ == "UUID":
            return {"D": ["UUID", value.hex]}
        if kind in (type({}.keys()), type({}.values()), type({}.items())):
            return {"W": [kind.__name__, [self.encode(item) for item in value]]}
        if kind is Theirs:
            return {"Y": value.number}
        if kind is slice:
            return {"L": [self.encode(part) for part in (value.start, value.stop, value.step)]}
        if isinstance(value, Remote | RemoteClass):
            number = value.__dict__.get("_eapo_class") if isinstance(value, type) else None
            number = value._eapo_id if isinstance(value, Remote) else number
            if number is not None:
                return {"Y": number}
        if (name := name_of(value)) is not None:
            return {"N": name}
        if kind.__name__ in ("Fraction", "Decimal") or "numpy" in kind.__module__:
            data = values.encode(value)
            if isinstance(data, dict) and next(iter(data)) in _PLAIN_TAGS:
                return {"v": data}
        if isinstance(value, BaseException) and name_of(kind) is not None:
            return {"X": [name_of(kind), [self.encode(item) for item in value.args]]}
        return self._described_object(value, kind)

    def _described_object(self, value: Any, kind: type) -> Any:
        number = self._my_ids.get(id(value))
        if number is None:
            number = next(self._numbers)
            self._mine[number], self._my_ids[id(value)] = value, number
        if number in self._described:
            return {"O": number}
        self._described.add(number)
        if isinstance(value, type):
            bases = [self.encode(b) for b in value.__bases__ if b.__module__ != "typing"]
            specials = [n for n in SPECIALS if _defines(value, n)]
            plain = next((b.__name__ for b in (list, dict, set) if issubclass(value, b)), "")
            return {"K": [number, value.__name__, bases, specials, plain]}
        for what, kinds in (
            ("g", _ITERATORS),
            ("a", (types.CoroutineType,)),
            ("A", (types.AsyncGeneratorType,)),
        ):
            if kind in kinds or (what == "g" and kind.__module__ == "itertools"):
                self._described.discard(number)
                return {what: number}
        if isinstance(value, BaseException):
            args = [self.encode(item) for item in value.args]
            return {"E": [number, self._described_object(kind, type), args]}
        if isinstance(value, _IMMUTABLE):
            plain_value = self.encode(values._plain(value))
            return {"P": [number, self._described_object(kind, type), plain_value]}
        return {"I": [number, self._described_object(kind, type)]}

    def decode(self, data: Any) -> Any:
        """Return the value of JSON data."""
        if not isinstance(data, dict):
            if isinstance(data, list):
                raise ValueError("a list is shared, not copied")
            return data
        ((tag, body),) = data.items()
        if tag in ("O", "I", "E", "P", "K", "g", "a", "A"):
            return self._stand_in(tag, body)
        if tag == "Y":
            return self._mine[body]
        if tag == "M":
            return self._shared[body]
        if tag == "v":
            return values.decode(body)
        if tag == "t" or tag == "f":
            items = [self.decode(item) for item in body]
            return tuple(items) if tag == "t" else frozenset(items)
        if tag == "N":
            return named(*body)
        if tag == "L":
            return slice(*map(self.decode, body))
        if tag == "X":
            made = named(*body[0])
            if not (isinstance(made, type) and issubclass(made, BaseException)):
                raise ValueError("not an exception")
            error = made.__new__(made, *map(self.decode, body[1]))
            error.__dict__["_eapo_crossed"] = True
            if isinstance(error, StopIteration):
                error.value = error.args[0] if error.args else None
            return error
        if tag == "W":
            items = [self.decode(item) for item in body[1]]
            if body[0] == "dict_keys":
                return dict.fromkeys(items).keys()
            return (
                dict(items).items() if body[0] == "dict_items" else dict(enumerate(items)).values()
            )
        if tag == "D":
            if body[0] == "UUID":
                import uuid

                return uuid.UUID(body[1])
            if body[0] == "timedelta":
                return datetime.timedelta(*body[1])
            kinds = {k.__name__: k for k in (datetime.date, datetime.time, datetime.datetime)}
            return kinds[body[0]].fromisoformat(body[1])
        return values.decode(data)

    def _stand_in(self, tag: str, body: Any) -> Any:
        number = body if isinstance(body, int) else body[0]
        if tag == "g":
            return self._items(number)
        if tag == "a":
            return self.awaited(Theirs(number))
        if tag == "A":
            return self._async_items(number)
        if number in self._theirs:
            return self._theirs[number]
        made: Any
        if tag == "K":
            _, name, bases, specials, plain = body
            parents = tuple(b for b in map(self.decode, bases) if _can_derive(b))
            made = make_class(self, number, str(name), parents, specials, plain)
        else:
            kind = self.decode(body[1])
            if tag == "E":
                made = kind.__new__(kind)
                made.args = tuple(map(self.decode, body[2]))
                object.__setattr__(made, "_eapo_id", number)
            elif tag == "P":
                made = _subclassed(self, kind, number, self.decode(body[2]))
            else:
                made = object.__new__(kind)
                object.__setattr__(made, "_eapo_id", number)
        self._theirs[number] = made
        return made

    def _items(self, number: int) -> Generator[Any, Any, Any]:
        """Go through an iterator of the other side, in larger steps when it is a long one."""
        served, sent = 0, None
        while True:
            most = _BATCH if served >= _BATCH and sent is None else 1
            items, end, value = self.ask("next", Theirs(number), most, sent)
            for item in items:
                sent = yield item
                served += 1
            if end == 1:
                return value
            if end == 2:
                raise value

    async def _async_items(self, number: int) -> Any:
        while True:
            try:
                item = await self.awaited(self.ask("special", Theirs(number), "__anext__", ()))
            except StopAsyncIteration:
                return
            yield item


class Theirs:
    """An object of the other side, for `encode`."""

    def __init__(self, number: int) -> None:
        self.number = number


def _fill_set(thing: set[Any], items: list[Any]) -> None:
    """Give a set items in that order, if it can have it: the order tells how a set was made."""
    for made in (items, frozenset(items), frozenset(list(frozenset(items)))):
        thing.clear()
        thing.update(made)
        if all(one is other for one, other in zip(thing, items, strict=True)):
            return


def is_remote(error: BaseException) -> bool:
    return isinstance(error, Remote) or getattr(error, "_eapo_crossed", False)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    kind = numpy is not None and type(value) is numpy.ndarray and value.dtype.kind in "biufc"
    return bool(kind)


def _can_derive(base: Any) -> bool:
    return isinstance(base, RemoteClass) or issubclass(base, BaseException)


def _defines(kind: type, name: str) -> bool:
    """Whether a class has a special method that its stand-in does not have by itself."""
    for part in kind.__mro__:
        if (
            part not in (object, *_IMMUTABLE)
            and not (
                issubclass(part, BaseException) and getattr(builtins, part.__name__, None) is part
            )
            and name in part.__dict__
        ):
            return True
    return False


def _subclassed(peer: Crossing, kind: Any, number: int, plain: Any) -> Any:
    """Return a plain value that has the class and the methods of the other side's object."""
    made = kind.__dict__.get("_eapo_plain")
    if made is None:
        body = {n: m for n, m in kind.__dict__.items() if n in SPECIALS and n not in COMPARISONS}
        body |= {"__class_getitem__": None, "_eapo_class": kind._eapo_class}
        body = {
            n: m for n, m in body.items() if n not in ("__hash__", "__bool__", "__class_getitem__")
        }
        made = type.__new__(RemoteClass, kind.__name__, (type(plain), kind), body)
        type.__setattr__(kind, "_eapo_plain", made)
    value = type(plain).__new__(made, plain)
    object.__setattr__(value, "_eapo_id", number)
    return value
