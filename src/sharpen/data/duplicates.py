"""Rows that say the same, and rows that nearly do, found with 80 bytes a row.

Near duplicates are found by MinHash (Broder, 1997) over each text's runs of three words. Of every minimum
eight bits are kept (b-bit minwise hashing, Li and König, arXiv:0910.3349), and rows that agree in one of 16
bands of four minima are compared. The share of common runs (Jaccard) is so estimated to within 0.05 (one
standard error).
"""

from __future__ import annotations

import re
from array import array
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from sharpen.data.overlap import normalise

if TYPE_CHECKING:
    from numpy import ndarray

ALIKE = 0.8
"""The share of common runs of words from which two rows are near duplicates."""

MINIMA = 64
BAND = 4
"""Minima that make a band."""

RUN = 3
"""Words in a run."""

_CHINESE = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # and Japanese and Korean: no spaces, so each sign is a word
_WORD = re.compile(rf"[{_CHINESE}]|[^\W{_CHINESE}]+|[^\w\s]")
_AT_ONCE = 2048  # runs hashed at a time, and rows compared: bounds the memory of a long text


class Pair(NamedTuple):
    """A row that repeats an earlier one, by their numbers."""

    row: int
    earlier: int


class Found(NamedTuple):
    """The rows that repeat an earlier one, in order."""

    exact: list[Pair]
    near: list[Pair]


class Duplicates:
    """Takes texts one by one under rising numbers, and says which repeat an earlier one."""

    def __init__(self) -> None:
        self._numbers = array("Q")
        self._hashes = array("Q")
        self._minima = bytearray()

    def add(self, number: int, text: str) -> None:
        """Take the text of row `number`, such as its line."""
        plain = normalise(text)
        self._numbers.append(number)
        self._hashes.append(int.from_bytes(blake2b(plain.encode(), digest_size=8).digest(), "big"))
        self._minima += _minima(_WORD.findall(plain))

    def found(self) -> Found:
        """Exact: equal in normalised text. Near: not exact, and alike to an earlier row by `ALIKE`."""
        import numpy as np  # `sharpen --help` does without

        numbers = np.array(self._numbers, dtype=np.uint64)
        hashes = np.array(self._hashes, dtype=np.uint64)
        earliest = _first_equal(hashes)
        first = np.flatnonzero(earliest == np.arange(len(hashes)))
        repeats = np.flatnonzero(earliest != np.arange(len(hashes)))
        minima = np.frombuffer(self._minima, dtype=np.uint8).reshape(-1, MINIMA)[first]
        near = _near(minima)
        return Found(
            [Pair(int(numbers[row]), int(numbers[earliest[row]])) for row in repeats],
            [Pair(int(numbers[first[row]]), int(numbers[first[other]])) for row, other in sorted(near.items())],
        )


def _near(minima: ndarray[Any, Any]) -> dict[int, int]:
    """The earlier row that each row (of MINIMA bytes) is alike to."""
    import numpy as np

    found: dict[int, int] = {}
    equal_by_chance = 1 / 256  # of two different minima, by their eight bits
    needed = MINIMA * (ALIKE + (1 - ALIKE) * equal_by_chance)
    for band in np.ascontiguousarray(minima).view(np.uint32).T:
        earlier = _first_equal(band)
        rows = np.flatnonzero(earlier != np.arange(len(band)))
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            same = (minima[some] == minima[earlier[some]]).sum(axis=1)
            for row in some[same >= needed]:
                found.setdefault(int(row), int(earlier[row]))
    return found


def _first_equal(values: ndarray[Any, Any]) -> ndarray[Any, Any]:
    """For each value, the index of the first that equals it."""
    import numpy as np

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.ones(len(values), dtype=bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    earliest = np.empty(len(values), dtype=np.int64)
    earliest[order] = order[np.maximum.accumulate(np.where(begins, np.arange(len(values)), 0))]
    return earliest


def _minima(words: list[str]) -> bytes:
    """Eight bits of the least hash of a text's runs of words, under each of MINIMA hash functions."""
    import numpy as np

    factors, offsets = _functions()
    hashes = np.array([crc32(word.encode()) for word in words], dtype=np.uint64)
    hashes = np.pad(hashes, (0, max(0, RUN - len(words))))
    count = len(hashes) - RUN + 1
    runs = np.zeros(count, dtype=np.uint64)
    for place in range(RUN):
        runs = (runs ^ (runs >> np.uint64(29))) * factors[place] + hashes[place : place + count]
    runs = (runs ^ (runs >> np.uint64(32))) * factors[0]
    least = np.full(MINIMA, np.iinfo(np.uint64).max, dtype=np.uint64)
    for start in range(0, count, _AT_ONCE):
        some = runs[start : start + _AT_ONCE, None] >> np.uint64(32)
        least = np.minimum(least, (some * factors + offsets).min(axis=0))
    return ((least >> np.uint64(24)) & np.uint64(255)).astype(np.uint8).tobytes()


@cache
def _functions() -> tuple[ndarray[Any, Any], ndarray[Any, Any]]:
    """Factors (odd) and offsets of multiply-shift hashing (Dietzfelbinger et al., 1997); the same in every process."""
    import numpy as np

    numbers = np.random.default_rng(64).integers(0, 2**63, size=(2, MINIMA), dtype=np.uint64)
    return numbers[0] * np.uint64(2) + np.uint64(1), numbers[1]
