"""Plain values through the wall: what goes out comes back exactly, and nothing else can."""

from __future__ import annotations

import enum
import json
import math
from collections import Counter, OrderedDict
from typing import Any, NamedTuple

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as some

from sharpen.sandbox import values


class Point(NamedTuple):
    x: int
    y: int


LEAVES = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats(allow_nan=False)
    | some.text()
    | some.binary()
    | some.complex_numbers(allow_nan=False)
)
HASHABLE = some.integers() | some.text() | some.tuples(some.integers(), some.text())
PLAIN = some.recursive(
    LEAVES,
    lambda inner: (
        some.lists(inner)
        | some.lists(inner).map(tuple)
        | some.dictionaries(HASHABLE, inner)
        | some.sets(HASHABLE)
        | some.frozensets(HASHABLE)
    ),
    max_leaves=20,
)


def shape(value: Any) -> Any:
    """The value with the type of every part, so that 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(part)) for key, part in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [shape(part) for part in value]
    return type(value), repr(value) if isinstance(value, (float, complex)) else value


@given(PLAIN)
def test_plain_values_come_back_as_they_were_types_and_all(value: Any) -> None:
    assert shape(values.loads(values.dumps(value))) == shape(value)


def test_numbers_that_json_lacks_come_back_too() -> None:
    back = values.loads(values.dumps([math.inf, -math.inf, math.nan, -0.0, 10**400, -(2**53)]))
    assert back[:2] == [math.inf, -math.inf] and math.isnan(back[2]) and math.copysign(1, back[3]) == -1
    assert back[4:] == [10**400, -(2**53)]


def test_what_derives_from_a_plain_type_becomes_it_and_numpy_becomes_numbers() -> None:
    class Colour(enum.IntEnum):
        RED = 3

    class Liar(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    point = Point(1, 2)
    given: list[Any] = [
        Colour.RED,
        Liar(5),
        point,
        Counter("aab"),
        OrderedDict(a=1),
        numpy.float32(0.5),
        numpy.arange(3),
    ]
    back = values.loads(values.dumps(given))
    assert shape(back) == shape([3, 5, (1, 2), {"a": 2, "b": 1}, {"a": 1}, 0.5, [0, 1, 2]])
    assert back[1] != 7


@pytest.mark.parametrize("value", [object(), iter([1]), len, range(3), {1: [lambda: 0]}])
def test_what_is_not_plain_does_not_leave(value: object) -> None:
    with pytest.raises(TypeError, match="no plain data"):
        values.dumps(value)


def test_depth_has_an_end_on_both_sides() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="deep"):
        values.dumps(endless)
    for text in (b'["list",[' * 200 + b"]]" * 200, b"[" * 100_000):
        with pytest.raises(ValueError):
            values.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b"NaN",
        b"Infinity",
        b"{}",
        b'{"a":1}',
        b"[]",
        b"[1,2]",
        b'["list"]',
        b'["list",1]',
        b'["object",[]]',
        b'["int",5]',
        b'["int","zz"]',
        b'["float","1e5"]',
        b'["bytes","0"]',
        b'["set",[["list",[]]]]',
        b'["dict",[[1]]]',
        b'["dict",[[["list",[]],1]]]',
        b"\xff\xfe1\x00",
        b"",
        b"1 2",
    ],
)
def test_what_dumps_would_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        values.loads(text)


def test_lone_surrogates_pass_without_harm() -> None:
    assert values.loads(values.dumps("\ud800")) == "\ud800"
    assert json.loads(values.dumps("\ud800")) == "\ud800"
