"""What crosses the sandbox's wall: every plain value as it was, nothing else as anything."""

import decimal
import fractions
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eapo_agents.sandbox.inside.values import DIGEST_ITEMS, Opaque, from_text, to_text

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
HASHABLE = st.recursive(LEAVES, lambda v: st.tuples(v, v) | st.frozensets(v), max_leaves=5)
VALUES = st.recursive(
    LEAVES,
    lambda v: (
        st.lists(v) | st.tuples(v, v) | st.sets(HASHABLE) | st.dictionaries(HASHABLE, v)
    ),
    max_leaves=20,
)  # fmt: skip


def kinds(value):
    """The value with the types of all its parts, which `==` does not look at."""
    if isinstance(value, list | tuple):
        return type(value), [kinds(item) for item in value]
    if isinstance(value, dict):
        return type(value), [(kinds(k), kinds(v)) for k, v in value.items()]
    return type(value)


@given(VALUES)
def test_a_plain_value_comes_back_as_it_was(value):
    text = to_text(value)
    assert "\n" not in text
    assert text.isascii()
    assert from_text(text) == value
    assert kinds(from_text(text)) == kinds(value)
    assert to_text(from_text(text)) == text


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(10**5000, id="ten to the 5000th"),
        -(2**62),
        2**62,
        [2**70, 1],
        range(3, 9, 2),
        fractions.Fraction(1, 3),
        decimal.Decimal("1.50"),
        bytearray(b"x"),
        np.float64(0.5),
        np.array([1.5, 2.0]),
        np.int64(3),
        "\ud800",
        float("inf"),
        -0.0,
    ],
)
def test_rarer_values_come_back_with_their_type(value):
    back = from_text(to_text(value))
    assert type(back) is type(value)
    assert np.array_equal(back, value)


def test_a_list_with_nan_equals_no_other():
    assert from_text("[NaN]") != from_text("[NaN]")


def test_nan_stays_nan_and_iterators_stay_iterators():
    assert math.isnan(from_text(to_text(float("nan"))))
    assert list(from_text(to_text(x for x in "ab"))) == ["a", "b"]
    assert list(from_text(to_text(map(str, [1])))) == ["1"]
    assert from_text(to_text({"a": 1}.keys())) == {"a"}


def test_a_subclass_is_equal_to_its_plain_value_and_of_another_type():
    class Yes(int):
        def __eq__(self, other):
            return True

        __hash__ = int.__hash__

    back = from_text(to_text(Yes(3)))
    assert back == 3
    assert back != 4
    assert type(back) is not int


def test_other_objects_are_opaque_and_equal_nothing():
    for value in (object(), re.match("a", "a"), lambda: None, type, ...):
        back = from_text(to_text(value))
        assert isinstance(back, Opaque)
        assert back != value
        assert bool(back) == bool(value)


def test_what_cannot_be_written_is_opaque():
    cyclic = []
    cyclic.append(cyclic)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (cyclic, deep):
        assert isinstance(from_text(to_text(value)), Opaque)


def test_a_very_long_list_of_lists_is_told_by_its_digest():
    long = [[i] for i in range(DIGEST_ITEMS)]
    assert to_text(long) == to_text([list(item) for item in long])
    assert to_text(long) != to_text([*long[:-1], [0]])
    assert to_text(long) != to_text(tuple(long))
    assert from_text(to_text(long)) != long


@pytest.mark.parametrize(
    "forged",
    ["", "{", "nonsense", '{"x": 1}', '{"t": 1, "s": 2}', '{"i": "9"}', '{"n": ["O", 1]}',
     '{"u": {"o": ["a", true]}}', '{"d": [[[1], 2]]}', '{"s": [[1]]}', '{"c": [1, 2, 3]}',
     '{"q": [1, 0]}', '{"r": [1, 2, 0]}', '{"m": "x"}', '{"b": "zz"}', "[" * 100_000],
)  # fmt: skip
def test_a_forged_line_is_refused(forged):
    with pytest.raises((ValueError, RecursionError)):
        from_text(forged)


def test_no_tag_reaches_code():
    for tag in ("__import__", "eval", "__class__"):
        with pytest.raises(ValueError, match="not a value"):
            from_text(json.dumps({tag: ["os"]}))
