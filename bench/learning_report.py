"""From the rewards of `bench.learning` to its summary and verdict (learning.json) and its plot (learning.svg)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sharpen.reports.markup import Html, tag
from sharpen.reports.scale import Scale, inner_ticks, ticks
from sharpen.runs.statistics import ArmDifference, Matrix, arm_difference

JSON = Path(__file__).with_name("learning.json")
SVG = Path(__file__).with_name("learning.svg")

MARGIN = 0.03
"""Of the reward: ours counts as not below TRL where the whole interval of the difference lies above -MARGIN."""

NAMES = {"trl": "TRL, fp32 weights", "ours": "sharpen"}
COLOURS = {"trl": "#d97706", "ours": "#2563eb"}


class Row(NamedTuple):
    """A step of a run, and a line of learning.csv."""

    seed: int
    side: str
    step: int
    """From 1."""

    reward: float
    """Mean over the step's completions, sampled before its update."""

    groups_with_spread: int
    tokens: int
    """Sampled, end tokens included."""

    start: str
    """Digest of the weights the run began with."""


Rewards = dict[str, Matrix]
"""Of each side, (seeds, steps), the same seeds in the same order."""


def report(rows: Sequence[Row], facts: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write the summary and, as soon as a seed is done on both sides, the plot; `facts` are of the sides just run."""
    before = json.loads(JSON.read_text()) if JSON.exists() else {}
    seeds, rewards = paired(rows)
    summary = {
        "settings": settings,
        "sides": {**before.get("sides", {}), **facts},
        "starts": sorted({row.start for row in rows}),
        "seeds": seeds,
        **(compare(seeds, rewards) if seeds else {}),
    }
    JSON.write_text(json.dumps(summary, indent=1) + "\n")
    if seeds:
        SVG.write_text(plot(seeds, rewards) + "\n")


def paired(rows: Iterable[Row]) -> tuple[list[int], Rewards]:
    """The seeds that both sides have, and their rewards."""
    curves: dict[tuple[str, int], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.step):
        curves.setdefault((row.side, row.seed), []).append(row.reward)
    seeds = sorted({seed for _, seed in curves if all((side, seed) in curves for side in NAMES)})
    return seeds, {side: np.array([curves[side, seed] for seed in seeds]) for side in NAMES}


def compare(seeds: Sequence[int], rewards: Rewards) -> dict[str, Any]:
    """What each side learned, the differences ours - TRL, and the verdict on the last half of the steps."""
    late = late_difference(rewards)
    whole = arm_difference(rewards["trl"], rewards["ours"], paired=True)
    half = rewards["ours"].shape[1] // 2
    means = {
        side: {
            "first_two_steps": float(matrix[:, :2].mean()),
            "last_half": float(matrix[:, half:].mean()),
            "all_steps": float(matrix.mean()),
        }
        for side, matrix in rewards.items()
    }
    return {
        "reward": means,
        "ours_minus_trl": {
            "last_half": _told(late, seeds, rewards, half),
            "all_steps": _told(whole, seeds, rewards, 0),
            "interval": "95 %, bootstrap over seeds and steps, paired by both (sharpen.runs.statistics.arm_difference)",
        },
        "margin": MARGIN,
        "not_below": late.ci95.low > -MARGIN,
        "verdict": verdict(late, len(seeds)),
    }


def late_difference(rewards: Rewards) -> ArmDifference:
    """Ours - TRL over the last half of the steps."""
    half = rewards["ours"].shape[1] // 2
    return arm_difference(rewards["trl"][:, half:], rewards["ours"][:, half:], paired=True)


def verdict(late: ArmDifference, seeds: int) -> str:
    """One sentence that claims no more than the interval shows."""
    low, high = late.ci95
    if low > 0:
        found = "our reward is above TRL's"
    elif low > -MARGIN:
        found = f"our reward is not below TRL's by {100 * MARGIN:g} points or more"
    elif high < 0:
        found = "our reward is below TRL's"
    else:
        found = f"undecided: a reward {100 * MARGIN:g} points below TRL's is not excluded"
    return (
        f"{found}: ours - TRL over the last half of the steps is {100 * late.delta:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f}, {seeds} seeds)"
    )


def plot(seeds: Sequence[int], rewards: Rewards) -> Html:
    """The curves of both sides, and beside them the difference of each seed with the interval of their mean."""
    return tag(
        "svg",
        tag("rect", width=WIDTH, height=HEIGHT, fill="#ffffff"),
        _curves(rewards),
        _differences(seeds, rewards),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        font_family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif",
        font_size=12,
        fill="#374151",
        role="img",
        aria_label="Reward of each step, sharpen beside TRL",
    )


WIDTH, HEIGHT, TOP, BOTTOM = 760, 340, 64, 296


def _curves(rewards: Rewards) -> Html:
    values = [float(value) for matrix in rewards.values() for value in matrix.flat]
    levels = ticks(min(values), max(values))
    steps = rewards["ours"].shape[1]
    x, y = Scale(1, steps, 52, 480), Scale(levels[0], levels[-1], BOTTOM, TOP)
    parts = [_title(52, "Reward of each step"), *_grid(levels, y, 52, 480, "{:.0f} %")]
    for tick in inner_ticks(1, steps):
        parts.append(tag("text", f"{tick:.0f}", x=_r(x(tick)), y=BOTTOM + 18, text_anchor="middle"))
    parts.append(tag("text", "step", x=266, y=BOTTOM + 36, text_anchor="middle"))
    for side, matrix in rewards.items():
        parts += [_line(curve, x, y, COLOURS[side], 1, 0.28) for curve in matrix]
    for place, (side, matrix) in enumerate(rewards.items()):
        parts.append(_line(matrix.mean(axis=0), x, y, COLOURS[side], 2.75, 1))
        left = 52 + 170 * place
        parts.append(tag("line", x1=left, x2=left + 22, y1=46, y2=46, stroke=COLOURS[side], stroke_width=2.75))
        parts.append(tag("text", NAMES[side], x=left + 28, y=50))
    parts.append(tag("text", f"thick: mean of {len(rewards['ours'])} seeds", x=480, y=50, text_anchor="end"))
    return tag("g", *parts)


def _differences(seeds: Sequence[int], rewards: Rewards) -> Html:
    late = late_difference(rewards)
    by_seed = _by_seed(rewards, rewards["ours"].shape[1] // 2)
    levels = ticks(min(*by_seed, late.ci95.low, -2 * MARGIN), max(*by_seed, late.ci95.high, 2 * MARGIN), 7)
    y, left, right = Scale(levels[0], levels[-1], BOTTOM, TOP), 572, 744
    x = Scale(0, len(seeds) + 2.2, left, right)
    parts = [_title(536, "Ours − TRL, by seed"), *_grid(levels, y, left, right, "{:+.0f}")]
    parts.append(tag("text", "points, last half of the steps", x=536, y=50))
    bound = _r(y(-MARGIN))
    dashed = {"stroke": "#b91c1c", "stroke_dasharray": "4 3"}
    parts.append(tag("line", x1=left, x2=right, y1=bound, y2=bound, **dashed))
    parts.append(tag("text", "margin", x=right, y=bound + 13, text_anchor="end", fill="#b91c1c", font_size=11))
    for place, (seed, gap) in enumerate(zip(seeds, by_seed, strict=True), 1):
        parts.append(tag("circle", cx=_r(x(place)), cy=_r(y(gap)), r=3.5, fill="#6b7280"))
        parts.append(tag("text", f"{seed}", x=_r(x(place)), y=BOTTOM + 18, text_anchor="middle"))
    middle = _r(x(len(seeds) + 1.4))
    ends = [_r(y(end)) for end in late.ci95]
    parts.append(tag("line", x1=middle, x2=middle, y1=ends[0], y2=ends[1], stroke="#111827", stroke_width=2))
    parts += [
        tag("line", x1=middle - 5, x2=middle + 5, y1=end, y2=end, stroke="#111827", stroke_width=2) for end in ends
    ]
    parts.append(tag("circle", cx=middle, cy=_r(y(late.delta)), r=5, fill="#111827"))
    parts.append(tag("text", "mean", x=middle, y=BOTTOM + 18, text_anchor="middle", font_weight=600))
    parts.append(tag("text", "95 %", x=middle, y=BOTTOM + 33, text_anchor="middle", font_size=11))
    return tag("g", *parts)


def _grid(levels: Sequence[float], y: Scale, left: float, right: float, text: str) -> Iterable[Html]:
    for level in levels:
        height, stroke = _r(y(level)), "#9ca3af" if level == 0 else "#e5e7eb"
        yield tag("line", x1=left, x2=right, y1=height, y2=height, stroke=stroke)
        shown = "0" if level == 0 else text.format(100 * level).replace("-", "−")
        yield tag("text", shown, x=left - 7, y=height + 4, text_anchor="end")


def _title(x: float, text: str) -> Html:
    return tag("text", text, x=x, y=24, font_size=14, font_weight=600, fill="#111827")


def _line(curve: Matrix, x: Scale, y: Scale, colour: str, width: float, opacity: float) -> Html:
    points = " ".join(f"{_r(x(step))},{_r(y(float(value)))}" for step, value in enumerate(curve, 1))
    stroke = {"stroke": colour, "stroke_width": width, "stroke_opacity": opacity, "stroke_linejoin": "round"}
    return tag("polyline", points=points, fill="none", **stroke)


def _told(difference: ArmDifference, seeds: Sequence[int], rewards: Rewards, first: int) -> dict[str, Any]:
    by_seed = {str(seed): gap for seed, gap in zip(seeds, _by_seed(rewards, first), strict=True)}
    return {"delta": difference.delta, "ci95": list(difference.ci95), "by_seed": by_seed}


def _by_seed(rewards: Rewards, first: int) -> list[float]:
    """Ours - TRL of each seed, over the steps from `first` (counted from 0) on."""
    gaps: list[float] = (rewards["ours"] - rewards["trl"])[:, first:].mean(axis=1).tolist()
    return gaps


def _r(number: float) -> float:
    return round(number, 1)
