"""Intervals over items, paired differences, and what a difference is made of. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from sharpen.types import Interval

RESAMPLES = 10_000
BLOCK = 500
"""Resamples computed at once, so that memory stays small."""

NEEDED = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
"""So many standard errors must a true difference measure to be found 4 times in 5 at 5 %, two-sided: 2.80."""

FEW = 10
"""Where fewer items than this are won or lost, the bootstrap of a paired difference is too narrow."""

EQUAL = 1e-12
"""Numbers this close are the same."""

Matrix = np.ndarray[Any, np.dtype[np.float64]]


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
    from one item; by Clopper-Pearson at most a share `slack` of all items may change otherwise. Where only a
    `FEW` items are won or lost, it would call 4 won and none lost a gain: the interval then holds Bonett and Price's
    too (Statistics in Medicine 2012, an adjusted Wald interval of paired proportions).
    """
    assert len(before) == len(after)
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    if np.ptp(differences) == 0:
        delta, slack = float(differences[0]), 1 - 0.025 ** (1 / len(differences))
        return Difference(delta, Interval(delta - slack * (1 + delta), delta + slack * (1 - delta)))
    delta, ci95 = float(differences.mean()), interval(differences.tolist())
    won, lost = int((differences == 1).sum()), int((differences == -1).sum())
    if won + lost < FEW and won + lost == np.count_nonzero(differences):
        least, most = _of_few(won, lost, len(differences))
        ci95 = Interval(min(ci95.low, least), max(ci95.high, most))
    return Difference(delta, ci95)


def _of_few(won: int, lost: int, items: int) -> Interval:
    """Bonett and Price's 95 % interval of (won - lost) / items."""
    more, less = (won + 1) / (items + 2), (lost + 1) / (items + 2)
    error = sqrt((more + less - (more - less) ** 2) / (items + 2))
    reach = NormalDist().inv_cdf(0.975) * error
    return Interval(more - less - reach, more - less + reach)


class ArmDifference(NamedTuple):
    """The difference between two recipes, each run with one seed or several."""

    delta: float
    ci95: Interval
    error: float
    """Standard error of `delta`."""
    agree: bool
    """Every seed has the difference's sign."""

    @property
    def shown(self) -> bool:
        """Whether the difference may be claimed: the signs agree and the interval excludes 0."""
        return self.agree and (self.ci95.low > 0 or self.ci95.high < 0)


def arm_difference(before: Matrix, after: Matrix, *, paired: bool) -> ArmDifference:
    """Mean of after - before, each of (seeds, items), over the same items; values between 0 and 1.

    One seed each: the paired bootstrap over items. Else a cluster bootstrap that draws seeds and items
    with replacement, the same seeds on both sides where they are `paired` (the same seeds, in one order).
    Signs agree where each seed's difference has the same one; of unpaired seeds, where every run of one
    arm is better than every run of the other.
    """
    assert before.shape[1] == after.shape[1]
    assert not paired or len(before) == len(after)
    ours, theirs = after.mean(axis=1), before.mean(axis=1)
    gaps = ours - theirs if paired else np.subtract.outer(ours, theirs).ravel()
    agree = bool((gaps > 0).all() or (gaps < 0).all())
    items_before, items_after = before.mean(axis=0), after.mean(axis=0)
    if len(before) > 1 or len(after) > 1:
        means = _resampled([after - before] if paired else [after, before])
        if np.ptp(means) > EQUAL:
            low, high = np.percentile(means, (2.5, 97.5))
            delta = float(items_after.mean() - items_before.mean())
            return ArmDifference(delta, Interval(float(low), float(high)), float(means.std()), agree)
    spread = float((items_after - items_before).std())
    difference = paired_difference(items_before.tolist(), items_after.tolist())
    return ArmDifference(*difference, spread / sqrt(before.shape[1]), agree)


def arm_interval(values: Matrix) -> Interval:
    """95 % interval of the mean of (seeds, items), over items, and over seeds where there are several."""
    if len(values) == 1 or np.ptp(values) <= EQUAL:
        return interval(values.mean(axis=0).tolist())
    low, high = np.percentile(_resampled([values]), (2.5, 97.5))
    return Interval(float(low), float(high))


def detectable(error: float, items: int) -> float:
    """The smallest true difference that a test at 5 % (two-sided) finds with a power of 80 %.

    (z₀.₉₇₅ + z₀.₈) · error = 2.80 · error. Where all items agree, at most a share 1 - 0.025^(1/n) of
    all items differ (Clopper-Pearson), which bounds the variance of a difference.
    """
    error = error or sqrt((1 - 0.025 ** (1 / items)) / items)
    return NEEDED * error


def paired_detectable(before: Sequence[float], after: Sequence[float]) -> float:
    """The `detectable` difference of two models that get each of n items right or wrong, from how they differed.

    The error is √((d − δ²) / n), d the share of items that only one of the two gets right and δ the difference:
    McNemar's test, as in R. J. Connor, "Sample size for testing differences in proportions for the paired-sample
    design", Biometrics 43 (1987) 207-211, with one variance for both terms. A true difference δ takes at least a
    share δ of items that differ, however few did here: with d = δ that is 2.80² / (n + 2.80²) at the least.
    """
    differences = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    items = len(differences)
    return max(detectable(float(differences.std()) / sqrt(items), items), NEEDED**2 / (items + NEEDED**2))


def unpaired_difference(
    before: float, before_ci95: Sequence[float], after: float, after_ci95: Sequence[float]
) -> Difference:
    """after - before of two independent shares, from each one's own interval.

    R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10: distances to the limits add in squares.
    """
    low = sqrt((after - after_ci95[0]) ** 2 + (before_ci95[1] - before) ** 2)
    high = sqrt((after_ci95[1] - after) ** 2 + (before - before_ci95[0]) ** 2)
    delta = after - before
    return Difference(delta, Interval(delta - low, delta + high))


def _resampled(arms: Sequence[Matrix]) -> Matrix:
    """Means of the first arm, less those of the second, over drawn seeds and items; all see the same items."""
    generator = np.random.default_rng(0)
    items = arms[0].shape[1]
    means = np.zeros(RESAMPLES)
    for start in range(0, RESAMPLES, BLOCK):
        part = slice(start, start + BLOCK)
        item_shares = generator.multinomial(items, np.full(items, 1 / items), BLOCK) / items
        for sign, arm in zip((1, -1), arms, strict=False):
            seeds = len(arm)
            seed_shares = generator.multinomial(seeds, np.full(seeds, 1 / seeds), BLOCK) / seeds
            means[part] += sign * ((seed_shares @ arm) * item_shares).sum(axis=1)
    return means


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
