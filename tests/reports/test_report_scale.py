"""Ticks, thinning and smoothing, against numbers worked by hand."""

from __future__ import annotations

import pytest

from sharpen.reports.scale import Point, Scale, inner_ticks, smooth, thin, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 0.55, [0, 0.2, 0.4, 0.6]),
        (0, 61, [0, 20, 40, 60, 80]),
        (-0.3, 0.4, [-0.4, -0.2, 0, 0.2, 0.4]),
        (3, 3, [0, 1, 2, 3, 4]),
        (0, 0, [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_data(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (1e-9, 2e-9),
        (0, 3e-17),
        (0, 5e-324),
        (-4e-15, 1e-15),
        (1e29, 1e30),
        (-5, 1e12),
        (0.999, 1.0),
        (1e9, 1e9 + 1),
    ],
)
def test_ticks_cover_any_data(low: float, high: float) -> None:
    found = ticks(low, high)
    slack = (high - low) * 1e-8
    assert 2 <= len(found) <= 5 and found[0] <= low + slack and found[-1] >= high - slack


def test_step_ticks_are_whole_and_inside() -> None:
    assert inner_ticks(1, 60) == [20, 40, 60]
    assert inner_ticks(1, 3) == [1, 2, 3]


def test_a_scale_does_not_leave_its_ends() -> None:
    scale = Scale(0, 10, 100, 0)
    assert (scale(5), scale(20), scale(-1)) == (50, 0, 100)


def test_thinning_keeps_both_ends_and_every_spike() -> None:
    points = [Point(step, 100.0 if step == 7777 else step % 3) for step in range(10_000)]
    kept = thin(points, 400)
    assert len(kept) <= 400
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert Point(7777, 100.0) in kept
    assert thin(points[:400], 400) == points[:400]


def test_smoothing_is_a_centred_mean() -> None:
    points = [Point(step, float(value)) for step, value in enumerate((0, 3, 6, 0, 3))]
    assert [value for _, value in smooth(points)] == pytest.approx([1.5, 3, 3, 3, 1.5])
