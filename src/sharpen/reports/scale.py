"""Arithmetic of charts: round ticks, fewer points, smoother lines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

TINY = 1e-20  # spans below a billionth of it are as good as none
WIDEST = 50  # points on either side that smoothing reaches


class Point(NamedTuple):
    """A value at a step."""

    step: float
    value: float


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps [low, high] of the data onto [start, end] of the drawing, and no further."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))


def ticks(low: float, high: float, most: int = 5, *, whole: bool = False) -> list[float]:
    """At most `most` round numbers, the first at or below `low`, the last at or above `high`."""
    if high - low <= max(abs(low), abs(high), TINY) * 1e-9:
        pad = abs(low) * 0.1 if abs(low) > TINY else 1.0
        low, high = (0.0, high + pad) if low >= 0 else (low - pad, high + pad)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = (power * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50))
    first, last, step = next(
        (first, last, step)
        for step in steps
        for first, last in [(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9))]
        if last - first < most and not (whole and step % 1)
    )
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


def inner_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round whole numbers within [low, high], for an axis of steps that ends where the data end."""
    return [tick for tick in ticks(low, high, most, whole=True) if low <= tick <= high]


def thin(points: Sequence[Point], limit: int) -> list[Point]:
    """At most `limit` points: both ends, and of each stretch its lowest and highest, so no spike is lost."""
    if len(points) <= limit:
        return list(points)
    stretches = max(1, limit // 2 - 1)
    kept = {0, len(points) - 1}
    for part in range(stretches):
        stretch = range(len(points) * part // stretches, len(points) * (part + 1) // stretches)
        kept.add(min(stretch, key=lambda index: points[index].value))
        kept.add(max(stretch, key=lambda index: points[index].value))
    return [points[index] for index in sorted(kept)]


def smooth(points: Sequence[Point]) -> list[Point]:
    """The mean over a centred window of about a tenth of the points, cut off at both ends."""
    reach = min(WIDEST, max(1, len(points) // 20))
    sums = [0.0]
    for point in points:
        sums.append(sums[-1] + point.value)
    smoothed = []
    for index, point in enumerate(points):
        start, end = max(0, index - reach), min(len(points), index + reach + 1)
        smoothed.append(Point(point.step, (sums[end] - sums[start]) / (end - start)))
    return smoothed
