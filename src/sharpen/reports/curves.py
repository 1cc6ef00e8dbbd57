"""Which charts a stage gets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sharpen.reports.markup import Html, join, tag
from sharpen.reports.meanings import MEANINGS
from sharpen.reports.numbers import Unit, at, duration, finite, plain
from sharpen.reports.plots import LOOKS, Mark, Plot, Series, lines, stacked
from sharpen.reports.read import Record, Run, Stage, label, text_of
from sharpen.reports.scale import Point

DOTS = 40  # validation points at most for each to be drawn as a dot
HUGE = 1e30  # beyond it a number is as good as infinite, and no axis can show it


@dataclass(frozen=True, slots=True)
class Curve:
    """A chart to draw where a stage's metrics have its values: (name, keys) for each series."""

    key: str
    """What it shows, as `meanings` knows it."""
    series: tuple[tuple[str, tuple[str, ...]], ...]
    unit: Unit = "number"
    from_zero: bool = True
    smoothed: bool = False
    spread: tuple[str, ...] = ()
    """The keys of the first series' standard deviation."""
    title: str = ""
    """Its heading, where that is not the name of what it shows."""
    note: str = ""
    """What stands below it instead of the healthy range."""

    @property
    def heading(self) -> str:
        """What stands above the chart."""
        return self.title or MEANINGS[self.key].name

    @property
    def below(self) -> str:
        """What stands below the chart."""
        return self.note or f"Healthy: {MEANINGS[self.key].healthy}."


NORM = Curve(
    "grad_norm",
    (("norm", ("grad_norm",)),),
    smoothed=True,
)
SFT = (
    Curve(
        "loss",
        (("train", ("loss",)), ("validation", ("validation", "loss"))),
        smoothed=True,
    ),
    Curve(
        "token_accuracy",
        (("train", ("token_accuracy",)), ("validation", ("validation", "token_accuracy"))),
        unit="share",
        from_zero=False,
        smoothed=True,
    ),
    NORM,
)
PREFERENCES = (
    Curve(
        "loss",
        (("train", ("loss",)), ("validation", ("validation", "loss"))),
        smoothed=True,
    ),
    Curve(
        "margin",
        (("train", ("rewards", "margins")), ("validation", ("validation", "rewards", "margins"))),
        smoothed=True,
    ),
    Curve(
        "preference_accuracy",
        (("train", ("rewards", "accuracies")), ("validation", ("validation", "rewards", "accuracies"))),
        unit="share",
        smoothed=True,
    ),
    Curve(
        "answer_reward",
        (("better", ("rewards", "chosen")), ("worse", ("rewards", "rejected"))),
        smoothed=True,
    ),
    Curve(
        "answer_logprob",
        (("better", ("logps", "chosen")), ("worse", ("logps", "rejected"))),
        from_zero=False,
        smoothed=True,
    ),
    Curve(
        "kl",
        (("KL", ("kl",)),),
        smoothed=True,
    ),
    NORM,
)
RFT = (
    Curve(
        "reward",
        (("train", ("reward", "mean")), ("validation", ("validation", "reward"))),
        smoothed=True,
        spread=("reward", "std"),
    ),
    Curve(
        "no_spread",
        (("share", ("no_spread_share",)),),
        unit="share",
        smoothed=True,
    ),
    Curve(
        "length",
        (("mean", ("length", "mean")), ("longest", ("length", "max"))),
        smoothed=True,
    ),
    Curve(
        "truncated",
        (("share", ("length", "truncated_share")),),
        unit="share",
        smoothed=True,
    ),
    Curve(
        "entropy",
        (("entropy", ("entropy",)),),
        smoothed=True,
    ),
    Curve(
        "kl",
        (("KL", ("kl",)),),
        smoothed=True,
    ),
    Curve(
        "clip_fraction",
        (("share", ("clip_fraction",)),),
        unit="share",
        smoothed=True,
    ),
    NORM,
    Curve(
        "logprob_gap",
        (("mean", ("logprob_gap", "mean")), ("largest", ("logprob_gap", "max"))),
        smoothed=True,
    ),
    Curve(
        "lr",
        (("rate", ("lr",)),),
    ),
)
CURVES = {"sft": SFT, "dpo": PREFERENCES, "reward_model": PREFERENCES, "rft": RFT}
"""By the stage's type."""

PHASES = Curve(
    "step_time",
    (("sample", ("time", "sample")), ("grade", ("time", "grade")), ("train", ("time", "train"))),
    unit="seconds",
)


def section(run: Run) -> Html:
    """The curves of every stage that has taken a step."""
    begun = [stage for stage in run.stages if stage.metrics]
    if not begun:
        return tag("p", "No training step is recorded yet.", class_="none")
    limit = 400 if len(begun) <= 3 else max(40, 1200 // len(begun))
    return join(_stage(run, stage, limit) for stage in begun)


def _stage(run: Run, stage: Stage, limit: int) -> Html:
    marks = tuple(_marks(run, stage))
    plots = [lines(replace(plot, marks=marks, limit=limit)) for plot in line_plots(stage)]
    phases = _plot(stage, PHASES)
    if stage.type == "rft" and phases is not None:
        plots.append(stacked(replace(phases, marks=marks)))
    steps = finite(stage.metrics[-1], "step") or 0
    of = finite(stage.metrics[-1], "steps")
    progress = f"{plain(steps)} of {plain(of)} steps" if of and of > steps else f"{steps:,.0f} steps"
    spent = sum(finite(line, "time", "step") or 0 for line in stage.metrics)
    return tag(
        "section",
        tag("h3", tag("i"), label(stage.name), tag("small", f"{progress}, {duration(spent)}")),
        _legend(marks),
        tag("div", *plots, class_="plots"),
        class_=f"stage {run.colour(stage.name)}",
    )


def _legend(marks: Sequence[Mark]) -> Html:
    """What the marks in the charts stand for, where there are any."""
    signs = {"checkpoint": "▴", "alert": "▾"}
    kinds = [kind for kind in signs if any(mark.kind == kind for mark in marks)]
    return tag(
        "p",
        *(tag("span", tag("span", signs[kind], class_=kind), f" {kind}") for kind in kinds),
        class_="marks",
    )


def line_plots(stage: Stage) -> Iterable[Plot]:
    """The stage's charts of lines, the most telling first."""
    yield from (plot for curve in CURVES.get(stage.type, RFT) if (plot := _plot(stage, curve)) is not None)
    graders = sorted({name for line in stage.metrics for name in at(line, "reward", "by_grader") or ()})
    if len(graders) > 1:
        keys = tuple((name, ("reward", "by_grader", name)) for name in graders[:3])
        plot = _plot(stage, Curve("by_grader", keys))
        yield from [plot] if plot else []


def _plot(stage: Stage, curve: Curve) -> Plot | None:
    """The chart, or None where no step has a value for it."""
    series = []
    for index, (name, keys) in enumerate(curve.series):
        points = points_of(stage.metrics, keys)
        spreads = {point.step: point.value for point in points_of(stage.metrics, curve.spread)}
        dotted = keys[0] == "validation" and len(points) <= DOTS
        if points:
            band = tuple(spreads.get(point.step, 0.0) for point in points) if spreads and index == 0 else ()
            series.append(Series(name, points, LOOKS[index], curve.smoothed and not dotted, dotted, band))
    if not series:
        return None
    unusable = sum(at(line, *curve.series[0][1]) is not None for line in stage.metrics) - len(series[0].points)
    warning = f" {unusable} steps had no finite value." if unusable > 0 and series[0].name == curve.series[0][0] else ""
    return Plot(curve.key, curve.heading, curve.below + warning, tuple(series), curve.unit, curve.from_zero)


def points_of(metrics: Sequence[Record], keys: tuple[str, ...]) -> tuple[Point, ...]:
    """The finite values under the keys, by step."""
    pairs = ((finite(line, "step"), finite(line, *keys)) for line in metrics)
    return tuple(
        Point(step, value) for step, value in pairs if step is not None and value is not None and abs(value) < HUGE
    )


def _marks(run: Run, stage: Stage) -> Iterable[Mark]:
    for event in run.events:
        step = finite(event, "step")
        if event.get("stage") != stage.name or step is None:
            continue
        if event.get("event") == "checkpoint":
            yield Mark(step, "checkpoint", f"checkpoint at step {step:,.0f}")
        elif event.get("event") == "alert":
            yield Mark(step, "alert", f"alert at step {step:,.0f}: {alert_text(event)}")


def alert_text(event: Record) -> str:
    """What an event says, besides when and where it was."""
    said = [text_of(value) for key, value in event.items() if key not in ("time", "event", "stage", "step")]
    return "; ".join(part for part in said if part)
