"""Intervals, differences, gains and pass@k, against known answers."""

from __future__ import annotations

import math
from itertools import combinations
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sharpen.runs.statistics import gains, interval, paired_difference, pass_at_k

bits = st.integers(0, 1)


@pytest.mark.parametrize(("n", "right"), [(100, 50), (400, 120), (1000, 900)])
def test_the_bootstrap_is_near_the_normal_approximation_of_the_binomial(n: int, right: int) -> None:
    share = right / n
    reach = 1.96 * sqrt(share * (1 - share) / n)
    low, high = interval([1.0] * right + [0.0] * (n - right))
    assert low == pytest.approx(share - reach, abs=0.1 * reach + 1 / n)
    assert high == pytest.approx(share + reach, abs=0.1 * reach + 1 / n)


def test_the_bootstrap_of_two_items_by_hand() -> None:
    """Means are 0, 1/2 and 1 with chances 1/4, 1/2 and 1/4."""
    assert interval([0.0, 1.0]) == (0.0, 1.0)


def test_where_all_items_agree_the_bound_is_exact() -> None:
    """Clopper-Pearson by hand: the share p at which n failures in a row have a chance of 2.5 %."""
    for n in (1, 10, 500):
        low, high = interval([0.0] * n)
        assert low == 0.0 and (1 - high) ** n == pytest.approx(0.025)
        assert interval([1.0] * n) == pytest.approx((1 - high, 1.0))
    assert interval([0.0] * 10)[1] == pytest.approx(0.30850, abs=1e-5)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20).filter(lambda values: max(values) - min(values) > 0.1))
def test_intervals_hold_the_mean_and_follow_shift_and_scale(values: list[float]) -> None:
    low, high = interval(values)
    mean = sum(values) / len(values)
    assert min(values) - 1e-9 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= max(values) + 1e-9
    assert interval([3 * value + 2 for value in values]) == pytest.approx((3 * low + 2, 3 * high + 2), abs=1e-6)


def test_paired_differences_use_the_pairing() -> None:
    """200 items, of which 20 improve: the interval is that of 20 of 200, however the rest stand."""
    before = [0.0] * 120 + [1.0] * 80
    after = [1.0] * 20 + [0.0] * 100 + [1.0] * 80
    delta, (low, high) = paired_difference(before, after)
    assert delta == pytest.approx(0.1)
    assert (low, high) == pytest.approx(interval([1.0] * 20 + [0.0] * 180))
    assert 0.05 < low < 0.07 and 0.13 < high < 0.15
    back = paired_difference(after, before)
    assert (back.delta, back.ci95.low, back.ci95.high) == pytest.approx((-delta, -high, -low), abs=0.006)


def test_differences_that_are_all_alike_claim_no_certainty() -> None:
    """One item that came right proves nothing; 500 unchanged ones leave less than a point."""
    alone = paired_difference([0.0], [1.0])
    assert (alone.delta, alone.ci95.low, alone.ci95.high) == pytest.approx((1.0, -0.95, 1.0))
    delta, (low, high) = paired_difference([0.0, 1.0] * 250, [0.0, 1.0] * 250)
    assert delta == 0.0 and high == -low == pytest.approx(1 - 0.025 ** (1 / 500))
    assert paired_difference([1.0] * 100, [0.0] * 100).ci95.high < -0.9


def test_gains_by_hand() -> None:
    """In form 4 of 10, 2 of those right; then 8 in form, 6 right: 0.4·0.5 = 0.2 becomes 0.8·0.75 = 0.6."""
    before = [1.0] * 4 + [0.0] * 6, [1.0] * 2 + [0.0] * 8
    after = [1.0] * 8 + [0.0] * 2, [1.0] * 6 + [0.0] * 4
    assert gains(*before, *after) == pytest.approx((0.4 * 0.625, 0.25 * 0.6))


def test_gains_where_no_item_is_in_form() -> None:
    """What the task gain was cannot be seen then: all is form."""
    assert gains([0, 0], [0, 0], [1, 1], [1, 0]) == pytest.approx((0.5, 0.0))
    assert gains([1, 1], [1, 0], [0, 0], [0, 0]) == pytest.approx((-0.5, 0.0))
    assert gains([0, 0], [0, 0], [0, 0], [0, 0]) == (0.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.tuples(bits, bits, bits, bits), min_size=1, max_size=30))
def test_gains_add_up_to_the_difference(items: list[tuple[int, int, int, int]]) -> None:
    form_before, right_before, form_after, right_after = (list(column) for column in zip(*items, strict=True))
    found = gains(form_before, right_before, form_after, right_after)
    delta = (sum(right_after) - sum(right_before)) / len(items)
    assert sum(found) == pytest.approx(delta, abs=1e-12)
    back = gains(form_after, right_after, form_before, right_before)
    assert back == pytest.approx([-value for value in found], abs=1e-12)


def test_pass_at_k_by_enumeration() -> None:
    for samples in range(1, 7):
        for correct in range(samples + 1):
            for k in range(1, samples + 1):
                draws = list(combinations([True] * correct + [False] * (samples - correct), k))
                assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(
    ("won", "lost", "items", "shown"),
    [(4, 0, 40, False), (4, 0, 200, False), (0, 4, 40, False), (6, 0, 40, True), (7, 2, 99, False), (30, 5, 99, True)],
)
def test_few_items_won_are_no_gain_where_mcnemars_exact_test_finds_none(
    won: int, lost: int, items: int, shown: bool
) -> None:
    before = [0.0] * won + [1.0] * lost + [1.0] * (items - won - lost)
    after = [1.0] * won + [0.0] * lost + [1.0] * (items - won - lost)
    found = paired_difference(before, after)
    p = 2 * sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
    assert (p < 0.05) is shown
    assert (found.ci95.low > 0 or found.ci95.high < 0) is shown
    assert found.delta == pytest.approx((won - lost) / items)
