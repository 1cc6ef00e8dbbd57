"""The page of a comparison: what differs, what that was worth, and whether it is more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharpen.reports import classes, overlay
from sharpen.reports.comparison import Arm, Comparison, EvalComparison, Flips, Test
from sharpen.reports.glossary import term
from sharpen.reports.html import document, replace, sections
from sharpen.reports.markup import Html, join, tag
from sharpen.reports.numbers import MISSING, points, show
from sharpen.reports.plots import whisker
from sharpen.reports.read import Record
from sharpen.reports.samples import Answer, flow, problem
from sharpen.reports.scale import ticks
from sharpen.reports.table import axis

EXAMPLES = 3
"""Items won, and items lost, that are shown of each pair."""
LONGEST = 90
"""Characters of a recipe's value."""
EXPLANATION = (
    "Accuracy: the share of greedy answers that are fully right, by each run's last model, on the items that all runs "
    "have answered. Brackets are 95% bootstrap intervals: over items, and over seeds where an arm has several. Runs "
    "that differ only in their seed are one arm. Between arms a difference is claimed where its paired interval "
    "excludes 0 and every seed has its sign. Detectable: the smallest true difference that such a test finds with a "
    "power of 80%, (1.960 + 0.842) × the standard error of the difference; for one run an arm that is the standard "
    "deviation of the items' differences ÷ √items."
)


def write(path: Path, comparison: Comparison) -> Path:
    """Write the page; the same runs give the same bytes."""
    replace(path, page(comparison))
    return path


def page(comparison: Comparison) -> str:
    """The whole document."""
    arms = comparison.arms
    contents = [
        ("Results", "results", _results(comparison)),
        ("What differs", "differences", _differences(comparison)),
        ("Training", "training", overlay.section(arms)),
        ("Won and lost", "samples", join(map(_flips, comparison.evals))),
    ]
    header = _header(comparison)
    shown = sections([part for part in contents if part[2]], header)
    return document(title(arms), header, tag("main", *shown), tag("footer", _source(arms)))


def title(arms: Sequence[Arm]) -> str:
    """The arms' names; of a single one that it is alone."""
    if len(arms) == 1:
        return f"{arms[0].name}, seed by seed"
    return f"{arms[0].name} against {', '.join(arm.name for arm in arms[1:])}"


def _header(comparison: Comparison) -> Html:
    facts = [
        tag("span", tag("i"), arm.name, tag("small", f" {_seeds(arm)}"), class_=f"key {arm.colour}")
        for arm in comparison.arms
    ]
    said = [
        tag("p", tag("small", "" if place else found.name), test.claim(), class_="verdict")
        for found in comparison.evals
        for place, test in enumerate(found.tests)
    ]
    alone = tag("p", "These runs differ only in their seed.", class_="verdict")
    return tag(
        "header",
        tag("p", *facts, class_="facts-line"),
        tag("h1", title(comparison.arms)),
        *(said or [alone]),
        tag("button", "◐", type="button", title="light or dark", hidden=""),
        class_="compare",
    )


def _seeds(arm: Arm) -> str:
    return f"{'seeds' if len(arm.seeds) > 1 else 'seed'} {', '.join(arm.seeds)}"


def _results(comparison: Comparison) -> Html:
    notes = (tag("p", note, class_="none") for note in comparison.notes)
    return join([*map(_eval, comparison.evals), *notes, tag("p", EXPLANATION, class_="explained")])


def _eval(found: EvalComparison) -> Html:
    top = max(max(score.mean, score.ci95.high) for score in found.scores.values())
    scale = ticks(0, top or 1)
    change = term("change", f"Against {found.arms[0].name}, points")
    names = ("Arm", term("accuracy"), axis(scale), term("by_seed"), change, term("detectable"))
    head = tag("tr", *(tag("th", name, scope="col") for name in names))
    tests = {test.other.name: test for test in found.tests}
    rows = [_row(found, arm, tests.get(arm.name), scale) for arm in found.arms]
    left = f", {found.left_out:,} left out that some run lacks" if found.left_out else ""
    labelled = (
        classes.section(items, overlay.name_of(arm, run))
        for arm in found.arms
        for run, items in zip(arm.runs, found.answers[arm.name], strict=True)
    )
    return tag(
        "div",
        tag("h3", found.name, tag("small", f" {found.items:,} items in common{left}")),
        tag("table", tag("thead", head), tag("tbody", *rows), class_="results"),
        *labelled,
        class_="eval",
    )


def _row(found: EvalComparison, arm: Arm, test: Test | None, scale: Sequence[float]) -> Html:
    score = found.scores[arm.name]
    low, high = score.ci95
    said = f"{arm.name}: {show(score.mean, 'share')}, 95% interval {show(low, 'share')} to {show(high, 'share')}"
    accuracy = [tag("b", show(score.mean, "share")), tag("small", f" [{low * 100:.1f}, {high * 100:.1f}]")]
    seeds = " ".join(f"{value * 100:.1f}" for value in score.by_seed) if len(arm.runs) > 1 else MISSING
    change: str = MISSING
    if test is not None:
        span = f" [{points(test.difference.ci95.low)}, {points(test.difference.ci95.high)}]"
        shown = test.difference.shown
        change = join([tag("b" if shown else "span", points(test.difference.delta)), tag("small", span)])
    cells = [
        ("Accuracy", join(accuracy)),
        ("", whisker(score.mean, low, high, scale, said)),
        ("By seed", seeds),
        ("Change, points", change),
        ("Detectable", points(test.detectable).lstrip("+") if test else MISSING),
    ]
    head = tag("th", tag("i"), arm.name, scope="row")
    body = (tag("td", text, data_label=name, class_=None if name else "picture") for name, text in cells)
    return tag("tr", head, *body, class_=arm.colour)


def _differences(comparison: Comparison) -> Html:
    arms = comparison.arms
    if len(arms) == 1:
        return tag("p", f"Nothing but the seed: {', '.join(arms[0].seeds)}.", class_="quiet")
    names = (tag("th", tag("i"), arm.name, scope="col", class_=f"key {arm.colour}") for arm in arms)
    head = tag("tr", tag("th", "In the recipe", scope="col"), *names)
    rows = [
        tag("tr", tag("th", path, scope="row"), *(tag("td", _short(value) or MISSING) for value in values))
        for path, values in (*comparison.differences, ("seed", tuple(", ".join(arm.seeds) for arm in arms)))
    ]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="differences"), class_="wide")


def _short(value: str) -> str:
    return value if len(value) <= LONGEST else f"{value[: LONGEST - 1]}…"


def _flips(found: EvalComparison) -> Html:
    return join(_pair(found, test, found.flips(test)) for test in found.tests)


def _pair(found: EvalComparison, test: Test, flips: Flips) -> Html:
    counts = {"won": len(flips.won), "alike": flips.same, "lost": len(flips.lost)}
    rule = (
        f"Shown: up to {EXAMPLES} won and {EXAMPLES} lost by {test.other.name}; those that flip in most seeds first, "
        "then in the order of the eval's file, not picked by hand."
    )
    examples = [("won", pair) for pair in flips.won[:EXAMPLES]] + [("lost", pair) for pair in flips.lost[:EXAMPLES]]
    return tag(
        "div",
        tag("h3", f"{found.name}: {test.first.name} to {test.other.name}"),
        flow(counts, f"{test.first.name} to {test.other.name}", found.items, rule),
        *(problem(kind, _answers(test, pair)) for kind, pair in examples),
        class_="samples",
    )


def _answers(test: Test, pair: tuple[Record, Record]) -> list[Answer]:
    return [Answer(arm.name, arm.colour, item) for arm, item in zip((test.first, test.other), pair, strict=True)]


def _source(arms: Sequence[Arm]) -> str:
    return f"Made by sharpen from {', '.join(f'{run.path.resolve().name}/' for arm in arms for run in arm.runs)} alone."
