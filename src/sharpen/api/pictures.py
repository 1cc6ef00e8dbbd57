"""A run's curves as one SVG picture, for notebooks: the report's own charts, with their colours written into them.

A page that shows a notebook may drop style sheets (GitHub does), so that every line carries its own look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from sharpen.errors import ConfigError
from sharpen.reports.curves import line_plots
from sharpen.reports.numbers import show
from sharpen.reports.plots import HEIGHT, WIDTH, Plot, lines
from sharpen.reports.read import Stage, label

COLUMNS, GAP, HEAD, KEYS, MARGIN = 3, 28, 34, 40, 16
PAPER, INK, SOFT, RULE = "#ffffff", "#1d1f23", "#646a72", "#e5e5e1"
TINTS = {
    "sft": "#0072b2",
    "rft": "#d55e00",
    "other-0": "#009e73",
    "other-1": "#b0578c",
    "other-2": "#9a7d00",
}
"""Okabe and Ito's colour-blind-safe set, as in the report's style.css."""
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"


class Curves:
    """A picture of metrics: the first three charts of each stage (a run's report has all). A notebook shows it."""

    def __init__(self, metrics: Sequence[Mapping[str, Any]]) -> None:
        """`metrics` are lines of metrics.jsonl, or your own with its names: stage, type (sft, dpo, rft), step, loss ...

        Raises ConfigError where there are none.
        """
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for line in metrics:
            lines.setdefault(str(line.get("stage", "rft")), []).append(line)
        if not lines:
            raise ConfigError("there are no metrics to draw", remedy="Take a training step first")
        self._stages: list[tuple[str, str, list[Plot]]] = []
        for index, (name, own) in enumerate(lines.items()):
            kind = str(own[0].get("type", "rft"))
            taken = kind not in TINTS or TINTS[kind] in [tint for _, tint, _ in self._stages]
            plots = list(line_plots(Stage(name, kind, {}, tuple(own))))[:COLUMNS]
            self._stages.append((label(name), TINTS[f"other-{index % 3}" if taken else kind], plots))

    def save(self, path: str | Path) -> Path:
        """Write the picture as an SVG file, and return its path."""
        place = Path(path)
        place.write_text(self._repr_svg_(), encoding="utf-8")
        return place

    def __repr__(self) -> str:
        return f"Curves of {', '.join(name for name, _, _ in self._stages)}"

    def _repr_svg_(self) -> str:
        row = HEAD + KEYS + HEIGHT
        width, height = 2 * MARGIN + COLUMNS * WIDTH + (COLUMNS - 1) * GAP, 2 * MARGIN + row * len(self._stages)
        root = Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width} {height}", width=str(width))
        root.set("font-family", FONT)
        SubElement(root, "rect", width=str(width), height=str(height), fill=PAPER)
        for index, (name, tint, plots) in enumerate(self._stages):
            top = MARGIN + index * row
            _write(root, name, MARGIN, top + 16, size=15, weight="600")
            for place, plot in enumerate(plots):
                root.extend(_chart(plot, MARGIN + place * (WIDTH + GAP), top + HEAD, tint))
        return ElementTree.tostring(root, encoding="unicode")


def _chart(plot: Plot, left: int, top: int, tint: str) -> Iterator[Element]:
    """A chart's title and last values, and below them its lines."""
    head = Element("g")
    _write(head, plot.title, left, top + 12, size=13, weight="600")
    at = left
    for series in plot.series:
        words = f"{series.name} {show(series.points[-1].value, plot.unit)}"
        SubElement(head, "circle", cx=str(at + 4), cy=str(top + 25), r="4", fill=_shade(series.look, tint))
        _write(head, words, at + 13, top + 29, size=12, fill=SOFT)
        at += 30 + 7 * len(words)
    yield head
    drawn = ElementTree.fromstring(lines(plot)).find("svg")
    assert drawn is not None
    for part in drawn.iter():
        for name, value in _look(part.attrib.pop("class", "").split(), tint).items():
            part.set(name, value)
    for name, number in {"x": left, "y": top + KEYS, "width": WIDTH, "height": HEIGHT}.items():
        drawn.set(name, str(number))
    yield drawn


def _look(classes: list[str], tint: str) -> dict[str, str]:
    """What style.css says of these classes."""
    colour = next((_shade(name, tint) for name in ("second", "third") if name in classes), tint)
    rounded = {"fill": "none", "stroke": colour, "stroke-linejoin": "round", "stroke-linecap": "round"}
    match classes:
        case ["line", "raw", *_]:
            return {**rounded, "stroke-width": "1", "opacity": ".38"}
        case ["line", *_]:
            return {**rounded, "stroke-width": "1.5" if "second" in classes else "2"}
        case ["dots", *_]:
            return {**rounded, "stroke-width": "5.5"}
        case ["band", *_]:
            return {"fill": tint, "opacity": ".1"}
        case ["grid"]:
            return {"stroke": RULE}
        case ["zero"]:
            return {"stroke": _mixed(SOFT, PAPER, 0.55)}
        case ["tick", side]:
            return {"fill": SOFT, "font-size": "10.5", "text-anchor": "end" if side == "y" else "middle"}
    return {}


def _shade(look: str, tint: str) -> str:
    return {"second": _mixed(tint, INK, 0.45), "third": _mixed(tint, PAPER, 0.4)}.get(look, tint)


def _mixed(one: str, other: str, share: float) -> str:
    """Two colours `#rrggbb`, so much of the first."""
    pairs = zip(bytes.fromhex(one[1:]), bytes.fromhex(other[1:]), strict=True)
    return "#" + bytes(round(share * a + (1 - share) * b) for a, b in pairs).hex()


def _write(parent: Element, text: str, x: int, y: int, *, size: int, fill: str = INK, weight: str = "400") -> None:
    written = SubElement(parent, "text", {"x": str(x), "y": str(y), "font-size": str(size), "font-weight": weight})
    written.set("fill", fill)
    written.text = text
