"""Whether a program said what was expected. Both are plain values of Python's own types, so nothing foreign runs."""

from __future__ import annotations

import math
import re
from typing import Any

SPACE = re.compile(r"(\s+)")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
NEAR = 1e-9
"""Numbers so close are equal whatever their size."""


def equal(found: Any, expected: Any, rel_tolerance: float) -> bool:
    """Equality as Python has it, but that tuples are lists (JSON has no tuples) and fractions have a tolerance."""
    if isinstance(found, float) or isinstance(expected, float):
        return _number(found) and _number(expected) and _close(found, expected, rel_tolerance)
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(
            equal(left, right, rel_tolerance) for left, right in zip(found, expected, strict=True)
        )
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            equal(found[key], expected[key], rel_tolerance) for key in expected
        )
    if isinstance(found, (set, frozenset)) and isinstance(expected, (list, tuple)):  # nor has it sets
        return len(found) == len(expected) and found == frozenset(map(_frozen, expected))
    return bool(found == expected)


def same_output(found: str, expected: str, rel_tolerance: float) -> bool:
    """Equal lines but for white space at their ends and empty lines at the end; fractions have a tolerance."""
    left, right = _lines(found), _lines(expected)
    return len(left) == len(right) and all(
        line == wanted or _same_words(SPACE.split(line), SPACE.split(wanted), rel_tolerance)
        for line, wanted in zip(left, right, strict=True)
    )


def _same_words(found: list[str], expected: list[str], rel_tolerance: float) -> bool:
    return len(found) == len(expected) and all(
        word == wanted
        or bool(
            "." in wanted
            and NUMBER.fullmatch(word)
            and NUMBER.fullmatch(wanted)
            and _close(float(word), float(wanted), rel_tolerance)
        )
        for word, wanted in zip(found, expected, strict=True)
    )


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _close(found: float, expected: float, rel_tolerance: float) -> bool:
    try:
        if math.isnan(expected):
            return math.isnan(found)
        return math.isclose(found, expected, rel_tol=rel_tolerance, abs_tol=NEAR)
    except OverflowError:  # an integer beyond all floats
        return False


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _frozen(value: Any) -> Any:
    """What a set would hold in the place of a list or set; a dict it cannot hold."""
    if isinstance(value, (list, tuple)):
        return tuple(map(_frozen, value))
    if isinstance(value, (set, frozenset)):
        return frozenset(map(_frozen, value))
    return object() if isinstance(value, dict) else value
