"""Differences between arms of several seeds, against enumeration and simulation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from sharpen.runs.statistics import Matrix, arm_difference, arm_interval, detectable, interval, paired_difference


def rows(*values: float, items: int = 40) -> Matrix:
    """One constant row for each seed."""
    return np.repeat(np.array(values)[:, None], items, axis=1)


def coins(share: float, seeds: int, items: int, key: int) -> Matrix:
    return (np.random.default_rng(key).random((seeds, items)) < share).astype(np.float64)


def test_one_seed_each_is_the_paired_bootstrap_over_items() -> None:
    before, after = coins(0.4, 1, 200, 1), coins(0.6, 1, 200, 2)
    given = arm_difference(before, after, paired=True)
    assert (given.delta, given.ci95) == paired_difference(before[0].tolist(), after[0].tolist())
    assert given.error == pytest.approx((after - before).std() / np.sqrt(200))
    assert given.shown


def test_with_items_alike_the_interval_is_that_of_drawing_seeds() -> None:
    """Three seeds, 27 equally likely draws: their mean is 0.1 with a chance of 1/27, above 2.5 %, and so is 0.6."""
    effects = (0.1, 0.2, 0.6)
    given = arm_difference(rows(0, 0, 0), rows(*effects), paired=True)
    draws = [np.mean(draw) for draw in product(effects, repeat=3)]
    assert given.delta == pytest.approx(0.3)
    assert given.ci95 == pytest.approx((0.1, 0.6))
    assert given.error == pytest.approx(np.std(draws), rel=0.02)
    assert given.agree and given.shown


def test_a_claim_needs_every_seeds_sign() -> None:
    """Nine seeds gain much and one loses a little: the interval is clear of zero, the signs are not."""
    before = rows(*[0.1] * 10)
    given = arm_difference(before, rows(*[0.6] * 9, 0.09), paired=True)
    assert given.ci95.low > 0 and not given.agree and not given.shown
    assert arm_difference(before, rows(*[0.6] * 9, 0.11), paired=True).shown
    assert arm_difference(rows(*[0.6] * 10), before, paired=True).shown


def test_a_claim_needs_the_interval_too() -> None:
    """Both seeds gain, by one item of five each: the items do not bear it."""
    before = np.zeros((2, 5))
    after = np.zeros((2, 5))
    after[:, 0] = 1
    given = arm_difference(before, after, paired=True)
    assert given.agree and given.ci95.low == 0.0 and not given.shown


def test_unpaired_seeds_agree_where_all_of_one_side_beat_all_of_the_other() -> None:
    low, mixed, high = rows(0.1, 0.2), rows(0.15, 0.5, 0.6), rows(0.3, 0.5, 0.6)
    assert arm_difference(low, high, paired=False).agree
    assert arm_difference(high, low, paired=False).agree
    assert not arm_difference(low, mixed, paired=False).agree


def test_unpaired_seeds_spread_more_than_paired_ones() -> None:
    """Seeds that move both arms alike cancel where they are paired: the variances add up where they are not."""
    before, after = rows(0.1, 0.4), rows(0.2, 0.5)
    paired = arm_difference(before, after, paired=True)
    apart = arm_difference(before, after, paired=False)
    assert paired.delta == apart.delta == pytest.approx(0.1)
    assert paired.shown and not apart.shown
    draws = [np.mean(a) - np.mean(b) for a in product((0.2, 0.5), repeat=2) for b in product((0.1, 0.4), repeat=2)]
    assert apart.error == pytest.approx(np.std(draws), rel=0.02)


def test_arms_that_answer_alike_show_nothing_and_claim_no_certainty() -> None:
    same = coins(0.5, 3, 50, 4)
    for paired in (True, False):
        given = arm_difference(same, same, paired=paired)
        assert given.delta == 0 and given.ci95.low < 0 < given.ci95.high and not given.shown


def test_the_error_of_items_and_seeds_is_near_its_formula() -> None:
    """Independent coins: over seeds and items the cluster bootstrap estimates about (1/items + 1/cells) p q."""
    values = coins(0.5, 4, 400, 7)
    given = arm_difference(np.zeros_like(values), values, paired=True)
    item_part = values.mean(axis=0).var() / 400
    seed_part = values.mean(axis=1).var() / 4
    assert given.error**2 == pytest.approx(item_part + seed_part + values.var() / 1600, rel=0.15)
    assert arm_interval(values) == pytest.approx(given.ci95, abs=0.002)


def test_an_arm_of_one_seed_has_the_interval_over_items() -> None:
    values = coins(0.3, 1, 100, 5)
    assert arm_interval(values) == interval(values[0].tolist())
    assert arm_interval(np.ones((3, 10))) == interval([1.0] * 10)


def test_a_detectable_difference_is_found_four_times_in_five() -> None:
    error = 0.02
    assert detectable(error, 100) == pytest.approx((1.959964 + 0.841621) * error, rel=1e-6)
    measured = np.random.default_rng(0).normal(detectable(error, 100), error, 20_000)
    assert np.mean(np.abs(measured / error) > 1.959964) == pytest.approx(0.8, abs=0.01)


def test_without_any_difference_the_detectable_one_is_bounded_by_the_rule_of_three() -> None:
    share = 1 - 0.025 ** (1 / 500)
    assert detectable(0.0, 500) == pytest.approx(2.801585 * (share / 500) ** 0.5, rel=1e-6)
