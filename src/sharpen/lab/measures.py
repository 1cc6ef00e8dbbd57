"""How far two columns of numbers agree, and how sure a share is. Pure functions."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from sharpen.types import Interval

Numbers = Sequence[float]
Vector = np.ndarray[Any, np.dtype[np.float64]]


def wilson(hits: int, n: int) -> Interval:
    """Wilson's 95 % interval of a share (JASA 22, 1927): it holds at 0 and at 1, and where n is small."""
    z = NormalDist().inv_cdf(0.975)
    centre = (hits + z * z / 2) / (n + z * z)
    slack = z / (n + z * z) * sqrt(hits * (n - hits) / n + z * z / 4)
    return Interval(max(0.0, centre - slack), min(1.0, centre + slack))


def ranks(values: Numbers) -> Vector:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    means = counts.cumsum() - (counts - 1) / 2
    return np.asarray(means[inverse], dtype=np.float64)


def spearman(one: Numbers, other: Numbers) -> float | None:
    """Spearman's ρ: Pearson's correlation of the ranks; None where a column is constant."""
    assert len(one) == len(other)
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    left, right = (column - column.mean() for column in (ranks(one), ranks(other)))
    return float((left @ right) / sqrt((left @ left) * (right @ right)))


def kendall(one: Numbers, other: Numbers) -> float | None:
    """Kendall's τ-b, which corrects for ties (Biometrika 33, 1945); None where a column is constant.

    Pairs in opposite order are counted as Knight does (JASA 61, 1966): as inversions, sorted by the other column.
    """
    assert len(one) == len(other)
    pairs = sorted(zip(one, other, strict=True))
    all_pairs = len(pairs) * (len(pairs) - 1) // 2
    tied_one, tied_other, tied_both = _tied(one), _tied(other), _tied(pairs)
    if all_pairs in (tied_one, tied_other):
        return None
    opposite = _inversions([second for _, second in pairs])
    alike = all_pairs - tied_one - tied_other + tied_both - opposite
    return (alike - opposite) / sqrt((all_pairs - tied_one) * (all_pairs - tied_other))


def auc(scores: Numbers, good: Sequence[bool]) -> float | None:
    """The chance that a good text has the higher score of a good and a bad one, ties counting half (Mann-Whitney).

    None where all are good, or none is.
    """
    right = sum(good)
    wrong = len(good) - right
    if not right or not wrong:
        return None
    above = float(ranks(scores)[np.asarray(good, dtype=bool)].sum()) - right * (right + 1) / 2
    return above / (right * wrong)


def _tied(values: Iterable[Hashable]) -> int:
    """How many pairs have equal values."""
    return sum(count * (count - 1) // 2 for count in Counter(values).values())


def _inversions(values: Numbers) -> int:
    """How many pairs stand in falling order."""
    seen: list[float] = []
    found = 0
    for value in values:
        place = bisect_right(seen, value)
        found += len(seen) - place
        seen.insert(place, value)
    return found
