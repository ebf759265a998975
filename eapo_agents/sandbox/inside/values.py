"""Python values as JSON, without pickle: only plain data crosses the sandbox's wall.

JSON's own types stand for themselves; every JSON object is a tag with one key:

    (1, 2)        {"t": [1, 2]}             {"a": 1}      {"d": [["a", 1]]}
    {1, 2}        {"s": [1, 2]}             2**70         {"i": "0x400000000000000000"}
    1 + 2j        {"c": [1.0, 2.0]}         re.Match      {"o": ["Match", true]}

A value of a type that is not listed becomes an `Opaque`, which equals nothing, as the real object
would not equal the plain data that tests compare with. One value has one text, so sets are sorted.
A list of 32,768 lists or more crosses as a digest: one benchmark has such outputs, of half a
gigabyte.
"""

from __future__ import annotations

import itertools
import json
import marshal
import re
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
MAX_ITEMS = 1_000_000
"""Of an iterator; a longer or endless one is opaque."""
DIGEST_ITEMS = 1 << 15
_CHUNK = 1 << 16
_MAX_DIGITS = 30
_LONG_DIGITS = re.compile(rf"\d{{{_MAX_DIGITS + 1}}}")
_MAX_EQUAL_HASHES = 32
_MAX_FRACTION_BITS = 1 << 16
_DTYPES = frozenset(
    f"{order}{kind}{size}"
    for order in "<>|="
    for kind, sizes in {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16),
                        "c": (8, 16, 32)}.items()
    for size in sizes
)  # fmt: skip
_SMALL = 1 << 62
_LEAVES = {int, float, str, bool, type(None)}
_ITERATORS: tuple[type, ...] = (
    map,
    filter,
    zip,
    enumerate,
    reversed,
    type(iter([])),
    type(iter(())),
)


class Opaque:
    """Stands for a value that cannot cross; it keeps only its type's name and its truth."""

    def __init__(self, name: str, truth: bool) -> None:
        self.name, self.truth = name, truth

    def __bool__(self) -> bool:
        return self.truth

    def __repr__(self) -> str:
        return f"<{self.name}>"


def to_text(value: object) -> str:
    """Return a value as one line of ASCII. A value that is nested too deeply is opaque."""
    try:
        return json.dumps(encode(value), separators=(",", ":"))
    except (RecursionError, ValueError):
        return json.dumps(_opaque(value), separators=(",", ":"))


def brief_text(value: object) -> str:
    """Return what `to_text` does, but a digest of a long text or list of numbers: writing one out
    takes longer than making it.

    Equal digests are of equal values of equal types. Different ones say nothing, since 1 equals
    1.0: then the value itself is needed.
    """
    if (type(value) is str and len(value) >= DIGEST_ITEMS) or (
        type(value) is list and len(value) >= DIGEST_ITEMS and set(map(type, value)) <= {int, float}
    ):
        return json.dumps({"h": _digest(value)}, separators=(",", ":"))
    return to_text(value)


def from_text(text: str) -> Any:
    """Return the value of a line, whether `to_text` wrote it or hostile code forged it.

    Its size and its time are at most a multiple of the line's length.

    Raises:
        ValueError, RecursionError: the line is not a value, or one that would cost more.
    """
    # a plain integer has at most 19 digits, and reading a long one takes quadratic time
    parse_int = _short_int if _LONG_DIGITS.search(text) else None
    try:
        # each NaN an object of its own: a list that holds the same one twice equals itself
        return decode(json.loads(text, parse_int=parse_int, parse_constant=float))
    except (TypeError, KeyError, IndexError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"not a value: {error}") from error


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError("a long integer is hexadecimal")
    return int(text)


def encode(value: object) -> Json:
    """Return a value as JSON data.

    Only exact types are plain: a subclass of `int` may compare as it likes, so it is marked as one.
    """
    if value is None or type(value) is bool or type(value) is str or type(value) is float:
        return value
    if type(value) is int:
        return value if -_SMALL < value < _SMALL else {"i": hex(value)}
    if type(value) is list or type(value) is tuple:
        return _encode_items(value)
    if type(value) is dict:
        return {"d": [[encode(key), encode(item)] for key, item in value.items()]}
    if type(value) is set or type(value) is frozenset:
        return {"s" if type(value) is set else "f": _sorted(value)}
    return _encode_rare(value, type(value))


def decode(data: Json) -> Any:
    """Return the value of JSON data."""
    if isinstance(data, list):
        plain = _LEAVES.issuperset(map(type, data))
        return data if plain else [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError("a tag has one key")
    ((tag, body),) = data.items()
    return _DECODERS[tag](body)


def _encode_items(values: list[Json] | tuple[Json, ...]) -> Json:
    items: list[Json]
    if _are_leaves(values):
        items = values if type(values) is list else list(values)
    elif len(values) >= DIGEST_ITEMS and (digest := _digest(values)) is not None:
        return {"h": digest}
    else:
        items = [encode(item) for item in values]
    return items if type(values) is list else {"t": items}


def _are_leaves(values: list[Json] | tuple[Json, ...]) -> bool:
    """Whether the items stand for themselves in JSON, as in most long lists."""
    kinds = set(map(type, values))
    if not kinds <= _LEAVES:
        return False
    if int not in kinds:
        return True
    return all(-_SMALL < item < _SMALL for item in values if type(item) is int)


def _digest(values: list[Any] | tuple[Any, ...] | str) -> str | None:
    """Return the SHA-256 of a long list, tuple or text, chunk by chunk; None if it holds more than
    plain data."""
    import hashlib

    digest = hashlib.sha256(type(values).__name__.encode())
    try:
        for start in range(0, len(values), _CHUNK):
            # version 2 of the format writes equal values alike, shared objects or not
            digest.update(marshal.dumps(values[start : start + _CHUNK], 2))
    except ValueError:
        return None
    return digest.hexdigest()


def _sorted(values: Iterable[object]) -> list[Json]:
    return sorted((encode(item) for item in values), key=json.dumps)


def _encode_rare(value: Any, kind: type) -> Json:
    if kind is bytes or kind is bytearray:
        return {"b" if kind is bytes else "y": bytes(value).hex()}
    if kind is complex:
        return {"c": [value.real, value.imag]}
    if kind is range:
        return {"r": [encode(value.start), encode(value.stop), encode(value.step)]}
    # a module that is not loaded has made no values, and loading it takes time
    if "fractions" in sys.modules and kind is sys.modules["fractions"].Fraction:
        return {"q": [encode(value.numerator), encode(value.denominator)]}
    if "decimal" in sys.modules and kind is sys.modules["decimal"].Decimal:
        return {"m": str(value)}
    if kind in _ITERATORS or kind.__name__ == "generator":
        items = list(itertools.islice(value, MAX_ITEMS + 1))
        return {"g": encode(items)} if len(items) <= MAX_ITEMS else _opaque(value)
    if kind is type({}.keys()):
        return {"k": encode(list(value))}
    if kind is type({}.values()) or kind is type({}.items()):
        return {"g": encode(list(value))}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in "biufc":
        return {"n": [value.dtype.str, encode(value.item())]}
    if numpy is not None and kind is numpy.ndarray and value.dtype.kind in "biufc":
        return {"a": [value.dtype.str, encode(value.tolist())]}
    plain = _plain(value)
    return _opaque(value) if plain is None else {"u": encode(plain)}


def _plain(value: object) -> object:
    """Return the plain value of a subclass of a listed type, None of any other object.

    The base class's own methods read it, since the subclass's are the sample's code.
    """
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, tuple):
        return tuple(tuple.__iter__(value))
    if isinstance(value, list):
        return [*list.__iter__(value)]
    if isinstance(value, dict):
        return {key: dict.__getitem__(value, key) for key in dict.__iter__(value)}
    if isinstance(value, set):
        return {*set.__iter__(value)}
    if isinstance(value, frozenset):
        return frozenset(frozenset.__iter__(value))
    return None


def _opaque(value: object) -> Json:
    try:
        truth = bool(value)
    except Exception:  # the sample's own __bool__
        truth = True
    return {"o": [str(type(value).__name__)[:100], truth]}


_SUBCLASSES: dict[type, Any] = {
    base: type(f"{base.__name__}_subclass", (base,), {})
    for base in (int, float, str, tuple, list, dict, set, frozenset)
}


def _subclassed(value: object) -> object:
    """Return an instance of a subclass: equal to the plain value, and of another type."""
    if type(value) not in _SUBCLASSES:
        raise ValueError("not a subclass that can cross")
    return _SUBCLASSES[type(value)](value)


def _hashable(items: Iterable[object]) -> list[object]:
    """Return the items, whose hashes must differ: equal ones take quadratic time in a set."""
    found = list(items)
    counts: dict[int, int] = {}
    for item in found:
        key = hash(item)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] > _MAX_EQUAL_HASHES:
            raise ValueError("too many items of one hash")
    return found


def _range(start: int, stop: int, step: int) -> range:
    made = range(start, stop, step)
    if len(made) > MAX_ITEMS:
        raise ValueError("a range that is too long")
    return made


def _int(text: str) -> int:
    if not text.removeprefix("-").startswith("0x"):
        raise ValueError("a long integer is hexadecimal")
    return int(text, 16)


def _fraction(numerator: int, denominator: int) -> Fraction:
    import fractions

    if max(numerator.bit_length(), denominator.bit_length()) > _MAX_FRACTION_BITS:
        raise ValueError("a fraction that is too long")  # its terms are reduced in quadratic time
    return fractions.Fraction(numerator, denominator)


def _decimal(text: str) -> Decimal:
    import decimal

    return decimal.Decimal(text)


def _numpy(dtype: str, value: object) -> Any:
    import numpy

    if dtype not in _DTYPES:
        raise ValueError("not a numeric array")
    return numpy.array(value, dtype=dtype)


_DECODERS: dict[str, Callable[[Any], object]] = {
    "t": lambda body: tuple([decode(item) for item in body]),
    "d": lambda body: dict(
        zip(
            _hashable(decode(key) for key, _ in body),
            [decode(item) for _, item in body],
            strict=True,
        )
    ),
    "s": lambda body: set(_hashable(map(decode, body))),
    "f": lambda body: frozenset(_hashable(map(decode, body))),
    "i": _int,
    "b": bytes.fromhex,
    "y": bytearray.fromhex,
    "c": lambda body: complex(*body),
    "r": lambda body: _range(*decode(body)),
    "q": lambda body: _fraction(*decode(body)),
    "m": lambda body: _decimal(body),
    "g": lambda body: iter(decode(body)),
    "k": lambda body: dict.fromkeys(_hashable(decode(body))).keys(),
    "n": lambda body: _numpy(body[0], decode(body[1]))[()],
    "a": lambda body: _numpy(body[0], decode(body[1])),
    "u": lambda body: _subclassed(decode(body)),
    "h": lambda body: Opaque(str(body), True),
    "o": lambda body: Opaque(str(body[0]), bool(body[1])),
}
