"""Charts as inline SVG. Colours come from CSS, so they follow the theme; values on hover from `script.js`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sharpen.reports.glossary import term
from sharpen.reports.markup import Html, tag
from sharpen.reports.numbers import Unit, show
from sharpen.reports.scale import Point, Scale, inner_ticks, smooth, thin, ticks

WIDTH, HEIGHT = 360, 186
LEFT, RIGHT, TOP, BOTTOM = 44, 352, 10, 162
SMOOTH_FROM = 12  # points from which a smoothed line is worth drawing


Look = Literal["main", "second", "third"]
LOOKS: tuple[Look, ...] = ("main", "second", "third")


@dataclass(frozen=True, slots=True)
class Series:
    """One quantity over steps. `band` holds a spread around each point."""

    name: str
    points: tuple[Point, ...]
    look: Look = "main"
    smoothed: bool = False
    dotted: bool = False
    band: tuple[float, ...] = ()
    colour: str = ""
    """A CSS class that tints it, where the page's own tint is not meant."""

    @property
    def style(self) -> str:
        """Its CSS classes."""
        return f"{self.look} {self.colour}".rstrip()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a step."""

    step: float
    kind: Literal["checkpoint", "alert"]
    text: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A small chart; `key` is what it shows as `meanings` knows it."""

    key: str
    title: str
    below: str
    """What stands below it, such as what is healthy."""
    series: tuple[Series, ...]
    unit: Unit = "number"
    from_zero: bool = True
    marks: tuple[Mark, ...] = ()
    limit: int = 400
    """Points drawn of each series at most."""


def lines(plot: Plot) -> Html:
    """Lines over steps, each value readable on hover."""
    shown = [point for series in plot.series for point in series.points]
    values = [point.value for point in shown] + [0.0] * plot.from_zero
    tops = [p.value + spread for s in plot.series for p, spread in zip(s.points, s.band, strict=False)]
    y_ticks = ticks(min(values), max(values + tops))
    x = _steps(shown)
    y = Scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    drawn = [part for series in plot.series for part in _draw(series, x, y, plot.limit)]
    hover = [
        [[p.step, _r(x(p.step)), _r(y(p.value)), show(p.value, plot.unit)] for p in thin(s.points, plot.limit)]
        for s in plot.series
    ]
    return _figure(plot, [_axes(x, y, y_ticks, plot.unit), *drawn], x, hover)


def stacked(plot: Plot, bars: int = 60) -> Html:
    """The series piled up, each bar the mean over a stretch of steps."""
    steps = sorted({point.step for series in plot.series for point in series.points})
    width = max(1, -(-len(steps) // bars))
    stretches = [set(steps[start : start + width]) for start in range(0, len(steps), width)]
    x = _steps([Point(step, 0) for step in steps], room=0.5)
    means = [[_mean(p.value for p in s.points if p.step in stretch) for stretch in stretches] for s in plot.series]
    y_ticks = ticks(0.0, max(sum(column) for column in zip(*means, strict=True)))
    y = Scale(y_ticks[0], y_ticks[-1], BOTTOM, TOP)
    floor = [0.0] * len(stretches)
    drawn, hover = [], []
    for series, heights in zip(plot.series, means, strict=True):
        path, read = [], []
        for index, (stretch, height) in enumerate(zip(stretches, heights, strict=True)):
            low, high = x(min(stretch) - 0.5), x(max(stretch) + 0.5)
            gap = min(1.5, (high - low) * 0.2)
            bottom, top = y(floor[index]), y(floor[index] + height)
            path.append(f"M{_r(low + gap / 2)} {_r(bottom)}H{_r(high - gap / 2)}V{_r(top)}H{_r(low + gap / 2)}z")
            read.append([min(stretch), _r((low + high) / 2), _r(top), show(height, plot.unit)])
            floor[index] += height
        drawn.append(tag("path", d="".join(path), class_=f"bar {series.look}"))
        hover.append(read)
    return _figure(plot, [_axes(x, y, y_ticks, plot.unit), *drawn], x, hover)


def whisker(value: float, low: float, high: float, axis: Sequence[float], text: str) -> Html:
    """A dot with its interval on an axis that starts at 0 and ends at its last tick, as wide as its place."""
    top = axis[-1]
    levels = [f"{100 * tick / top:.2f}%" for tick in axis]
    left, middle, right = (f"{100 * Scale(0, top, 0, 1)(number):.2f}%" for number in (low, value, high))
    return tag(
        "svg",
        tag("title", text),
        *(tag("line", x1=level, x2=level, y1="-40%", y2="140%", class_="grid") for level in levels),
        tag("line", x1=left, x2=right, y1="50%", y2="50%", class_="whisker"),
        *(tag("line", x1=end, x2=end, y1="33%", y2="67%", class_="whisker") for end in (left, right)),
        tag("circle", cx=middle, cy="50%", r=5, class_="dot"),
        class_="whiskers",
        role="img",
    )


def _draw(series: Series, x: Scale, y: Scale, limit: int) -> Iterable[Html]:
    if series.band:
        spreads = {point.step: spread for point, spread in zip(series.points, series.band, strict=True)}
        middle = smooth(series.points)
        edges = smooth([Point(step, spreads[step]) for step, _ in series.points])
        upper = [Point(p.step, p.value + e.value) for p, e in zip(middle, edges, strict=True)]
        lower = [Point(p.step, p.value - e.value) for p, e in zip(middle, edges, strict=True)]
        outline = _path(thin(upper, limit), x, y) + _path(thin(lower, limit)[::-1], x, y).replace("M", "L", 1) + "z"
        yield tag("path", d=outline, class_=f"band {series.colour}".rstrip())
    points = thin(series.points, limit)
    if series.smoothed and len(series.points) >= SMOOTH_FROM:
        yield tag("path", d=_path(points, x, y), class_=f"line raw {series.style}")
        yield tag("path", d=_path(thin(smooth(series.points), limit), x, y), class_=f"line {series.style}")
    else:
        yield tag("path", d=_path(points, x, y), class_=f"line {series.style}")
    if series.dotted or len(points) == 1:
        dots = "".join(f"M{_r(x(p.step))} {_r(y(p.value))}h0" for p in points)
        yield tag("path", d=dots, class_=f"dots {series.style}")


def _axes(x: Scale, y: Scale, y_ticks: Sequence[float], unit: Unit) -> Html:
    parts = []
    for tick in y_ticks:
        level = _r(y(tick))
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=level, y2=level, class_="zero" if tick == 0 else "grid"))
        parts.append(tag("text", _tick(tick, y_ticks, unit), x=LEFT - 7, y=level, dy="0.34em", class_="tick y"))
    for tick in inner_ticks(x.low, x.high):
        parts.append(tag("text", f"{tick:,.0f}", x=_r(x(tick)), y=BOTTOM + 17, class_="tick x"))
    return tag("g", *parts)


def _tick(tick: float, all_ticks: Sequence[float], unit: Unit) -> str:
    factor, sign = (100, "%") if unit == "share" else (1, " s" if unit == "seconds" else "")
    gap = (all_ticks[1] - all_ticks[0]) * factor
    digits = next((n for n in range(6) if abs(round(gap, n) - gap) < gap * 1e-6), 6)
    text = f"{tick * factor:.2g}" if digits > 4 else f"{tick * factor:,.{digits}f}"
    return ("0" if tick == 0 else text) + sign


def _figure(plot: Plot, drawn: Sequence[Html], x: Scale, hover: list[list[list[object]]]) -> Html:
    marks = [_mark(mark, x) for mark in plot.marks if x.low <= mark.step <= x.high]
    cursor = tag("g", tag("line", y1=TOP, y2=BOTTOM), class_="cursor", visibility="hidden")
    keys = [
        tag("span", tag("i"), f"{series.name} ", tag("b", str(read[-1][3])), class_=f"key {series.style}")
        for series, read in zip(plot.series, hover, strict=True)
    ]
    last = max(point.step for series in plot.series for point in series.points)
    return tag(
        "figure",
        tag("figcaption", tag("h4", term(plot.key, plot.title)), tag("span", f"step {last:,.0f}", class_="step")),
        tag("p", *keys, class_="keys"),
        tag("svg", *drawn, *marks, cursor, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=plot.title),
        tag("p", plot.below, class_="meaning"),
        class_="plot",
        data_series=json.dumps(hover, separators=(",", ":"), ensure_ascii=False),
    )


def _mark(mark: Mark, x: Scale) -> Html:
    place = _r(x(mark.step))
    title = tag("title", mark.text)
    if mark.kind == "checkpoint":
        return tag("path", title, d=f"M{place} {BOTTOM}l-3.5 6h7z", class_="checkpoint")
    return tag("g", title, tag("line", x1=place, x2=place, y1=TOP, y2=BOTTOM), _flag(place), class_="alert")


def _flag(place: float) -> Html:
    return tag("path", d=f"M{place} {TOP - 8}m-5 0h10l-5 8z")


def _steps(points: Sequence[Point], room: float = 0.0) -> Scale:
    low, high = min(p.step for p in points) - room, max(p.step for p in points) + room
    return Scale(low, high, LEFT, RIGHT) if high > low else Scale(low - 1, high + 1, LEFT, RIGHT)


def _path(points: Sequence[Point], x: Scale, y: Scale) -> str:
    return "M" + "L".join(f"{_r(x(point.step))} {_r(y(point.value))}" for point in points)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _r(number: float) -> float:
    return round(number, 1)
