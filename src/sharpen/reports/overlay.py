"""Several runs' curves in one chart, stage by stage: one line a run, one colour an arm."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.reports.comparison import Arm, seed_of
from sharpen.reports.curves import Curve, points_of
from sharpen.reports.markup import Html, join, tag
from sharpen.reports.plots import SMOOTH_FROM, Plot, Series, lines
from sharpen.reports.read import Record, Run, label
from sharpen.reports.scale import smooth

SMOOTHED = " Smoothed."
CURVES = (
    Curve("loss", (("", ("loss",)),), note="Of training: SFT's per token, DPO's per pair."),
    Curve("loss", (("", ("validation", "loss")),), title="Validation loss", note="On rows held out from training."),
    Curve("preference_accuracy", (("", ("rewards", "accuracies")),), unit="share", note="Over a step's pairs."),
    Curve(
        "preference_accuracy",
        (("", ("validation", "rewards", "accuracies")),),
        unit="share",
        title="Validation preference accuracy",
        note="On pairs held out from training.",
    ),
    Curve("margin", (("", ("rewards", "margins")),), note="Mean over a step's pairs."),
    Curve("reward", (("", ("reward", "mean")),), note="Mean over a step's completions."),
    Curve(
        "reward",
        (("", ("validation", "reward")),),
        title="Validation reward",
        note="On prompts held out from training.",
    ),
    Curve("length", (("", ("length", "mean")),), note="Mean tokens per completion."),
    Curve("kl", (("", ("kl",)),), note="How far the policy has moved in this stage, nats per token."),
    Curve("entropy", (("", ("entropy",)),), note="How undecided the policy is per token, in nats."),
)


def section(arms: Sequence[Arm]) -> Html:
    """The charts of every stage that some run has taken a step of."""
    names = dict.fromkeys(stage.name for arm in arms for run in arm.runs for stage in run.stages if stage.metrics)
    stages = [_stage(name, arms) for name in names]
    return join(stages) if stages else tag("p", "No training step is recorded.", class_="none")


def name_of(arm: Arm, run: Run) -> str:
    """A run's name in a legend: its arm's, and its seed where the arm has several."""
    return f"{arm.name}, seed {seed_of(run)}" if len(arm.runs) > 1 else arm.name


def _stage(name: str, arms: Sequence[Arm]) -> Html:
    plots = [lines(plot) for curve in CURVES if (plot := _plot(curve, name, arms)) is not None]
    return tag("section", tag("h3", label(name)), tag("div", *plots, class_="plots"), class_="stage")


def _plot(curve: Curve, name: str, arms: Sequence[Arm]) -> Plot | None:
    (_, keys), series, smoothed = curve.series[0], [], False
    for arm in arms:
        for run in arm.runs:
            points = points_of(_metrics(run, name), keys)
            if len(points) >= SMOOTH_FROM and keys[0] != "validation":
                points, smoothed = tuple(smooth(points)), True
            if points:
                series.append(Series(name_of(arm, run), points, colour=arm.colour))
    if not series:
        return None
    return Plot(curve.key, curve.heading, curve.below + SMOOTHED * smoothed, tuple(series), curve.unit)


def _metrics(run: Run, name: str) -> Sequence[Record]:
    return next((stage.metrics for stage in run.stages if stage.name == name), ())
