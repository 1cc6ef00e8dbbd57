"""Intervals over items, paired differences, and what a difference is made of. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import NamedTuple

import numpy as np

from sharpen.types import Interval

RESAMPLES = 10_000


class Difference(NamedTuple):
    """A paired difference of means, with its 95 % interval."""

    delta: float
    ci95: Interval


class Gains(NamedTuple):
    """A change of accuracy f·c, split between its factors."""

    first: float
    second: float


def interval(values: Sequence[float]) -> Interval:
    """95 % percentile bootstrap interval of the mean, over items (10,000 resamples, fixed seed).

    When every value is the same the bootstrap has width 0; for values of 0 and 1 the exact
    one-sided Clopper-Pearson bound takes its place ("the rule of three").
    """
    data = np.asarray(values, dtype=np.float64)
    if np.ptp(data) == 0 and data[0] in (0.0, 1.0):
        slack = 1 - 0.025 ** (1 / len(data))
        return Interval(0.0, slack) if data[0] == 0 else Interval(1 - slack, 1.0)
    generator = np.random.default_rng(0)
    means = np.array([data[generator.integers(0, len(data), len(data))].mean() for _ in range(RESAMPLES)])
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(float(low), float(high))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Mean of after - before over the same items in the same order, with a bootstrap interval over items.

    Values lie between 0 and 1. Where every item changes alike, the bootstrap would claim certainty even
    from one item; by Clopper-Pearson at most a share `slack` of all items may change otherwise.
    """
    assert len(before) == len(after)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if np.ptp(differences) == 0:
        delta, slack = float(differences[0]), 1 - 0.025 ** (1 / len(differences))
        return Difference(delta, Interval(delta - slack * (1 + delta), delta + slack * (1 - delta)))
    return Difference(float(differences.mean()), interval(differences.tolist()))


def gains(
    factor_before: Sequence[float],
    correct_before: Sequence[float],
    factor_after: Sequence[float],
    correct_after: Sequence[float],
) -> Gains:
    """Split a change of accuracy between a condition and the rest.

    Accuracy is f·c: f the share of items that meet the condition (in form, say), c the share of right
    ones among those. The change of the product is split evenly (Shapley value): Δf·mean(c) and
    mean(f)·Δc. A right item meets the condition. Where no item does, c is taken from the other side.
    """
    sides = []
    for in_form, correct in ((factor_before, correct_before), (factor_after, correct_after)):
        formed = np.maximum(np.asarray(in_form, dtype=np.float64), np.asarray(correct, dtype=np.float64))
        f = float(formed.mean())
        sides.append((f, float(np.mean(correct)) / f if f else None))
    (f0, c0), (f1, c1) = sides
    c0, c1 = (c1 if c0 is None else c0) or 0.0, (c0 if c1 is None else c1) or 0.0
    return Gains((f1 - f0) * (c0 + c1) / 2, (c1 - c0) * (f0 + f1) / 2)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """The chance that at least one of k attempts is right, from `correct` of `samples` (arXiv:2107.03374, eq. 1)."""
    return 1.0 - comb(samples - correct, k) / comb(samples, k)
