"""`sharpen compare`: runs side by side, in the terminal and as a page."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from sharpen.reports.comparison import Comparison, EvalComparison

ROWS = 40
"""Differences of recipes listed in the terminal; the page has all."""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen compare` is told."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run directories; the first is what the others are held to"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("compare.html"), metavar="FILE", help="the page (default: compare.html)"
    )


def compare(options: Namespace) -> int:
    """Compare runs; writes the page and prints the essence."""
    from sharpen.reports import compare as report
    from sharpen.reports import comparison

    found = comparison.compare(options.runs)
    _print(found)
    try:
        print(report.write(options.out, found))
    except OSError as error:
        from sharpen.errors import ConfigError

        raise ConfigError(
            f"cannot write the page: {error.strerror}", value=str(options.out), remedy="Choose another --out"
        ) from error
    return 0


def _print(found: Comparison) -> None:
    from rich.text import Text

    from sharpen.cli.table import console

    screen = console()
    if len(found.arms) == 1:
        screen.print(Text(f"\n{found.arms[0].name}: runs that differ only in their seed"))
    else:
        screen.print(_differences(found))
        more = len(found.differences) - ROWS
        if more > 0:
            screen.print(Text(f"  and {more} more in the page", "dim"))
    for result in found.evals:
        left = f"; {result.left_out:,} left out that some run lacks" if result.left_out else ""
        screen.print(Text.assemble("\n", (result.name, "bold"), f": {result.items:,} items in common{left}"))
        screen.print(_results(result))
        for test in result.tests:
            screen.print(Text(f"  {test.claim()}", "bold" if test.difference.shown else ""))
    for note in found.notes:
        screen.print(Text(note, "dim"))
    screen.print()


def _differences(found: Comparison) -> Table:
    from sharpen.cli.table import simple

    table = simple([("differs", "left"), *((arm.name, "left") for arm in found.arms)], wrap=True)
    for path, values in found.differences[:ROWS]:
        table.add_row(path, *(value or "–" for value in values))
    table.add_row("seed", *(", ".join(arm.seeds) for arm in found.arms))
    return table


def _results(result: EvalComparison) -> Table:
    from sharpen.cli.table import simple
    from sharpen.reports import classes
    from sharpen.reports.numbers import points, show

    columns = [("arm", "left"), ("right", "right"), ("95 % interval", "left"), ("by seed", "left")]
    columns += [("change", "right"), ("95 %, paired", "left"), ("detectable", "right")]
    tests = {test.other.name: test for test in result.tests}
    labelled = {
        arm.name: [found for items in result.answers[arm.name] if (found := classes.measure(items))]
        for arm in result.arms
    }
    table = simple([*columns, ("over classes", "left")] if any(labelled.values()) else columns)
    for arm in result.arms:
        score, test = result.scores[arm.name], tests.get(arm.name)
        table.add_row(
            arm.name,
            show(score.mean, "share"),
            f"[{score.ci95.low * 100:.1f}, {score.ci95.high * 100:.1f}]",
            " ".join(f"{value * 100:.1f}" for value in score.by_seed) if len(score.by_seed) > 1 else "",
            points(test.difference.delta) if test else "",
            f"[{points(test.difference.ci95.low)}, {points(test.difference.ci95.high)}]" if test else "",
            points(test.detectable).lstrip("+") if test else "",
            *(["\n".join(map(classes.summary, labelled[arm.name]))] if any(labelled.values()) else []),
            style="bold" if test and test.difference.shown else "",
        )
    return table
