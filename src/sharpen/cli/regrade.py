"""`sharpen regrade`: a run's rollouts under another grader."""

from __future__ import annotations

import asyncio
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli.bench import status
from sharpen.cli.evaluate import described
from sharpen.cli.grade import finite
from sharpen.cli.run import unsafe
from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console

    from sharpen.config.graders import Grader

Record = Mapping[str, Any]

STEPS = 8
"""So many steps are shown, spread over the run."""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen regrade` is told."""
    unsafe(parser)
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run directory, finished or not")
    parser.add_argument(
        "--grader", required=True, help="a type such as math, a YAML file, or a grader as in a recipe: '{type: ...}'"
    )
    parser.add_argument("--stage", default="", metavar="NAME", help="the stage (default: the last that sampled)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N steps")
    parser.add_argument(
        "--threshold", type=finite, metavar="T", help="the new full marks (default: 1, or the range's top)"
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def regrade(options: Namespace) -> int:
    """Grade a run's rollouts anew, and print what that changes."""
    if options.limit is not None and options.limit < 1:
        raise ConfigError("must be 1 or more", path="--limit", value=options.limit)
    config = _grader(options.grader)
    from sharpen.lab import regrade as lab

    with status() as observer:
        result = asyncio.run(
            lab.regrade(
                options.folder,
                config,
                stage=options.stage,
                limit=options.limit,
                threshold=options.threshold,
                observer=observer,
            )
        )
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)
    return 0


def _grader(text: str) -> Grader:
    """The grader as `sharpen eval` reads it; what else an eval has is filled in, and not looked at."""
    rest = {"data": "rows.jsonl", "limit": None, "max_tokens": 1, "samples": 0, "temperature": 1.0}
    found = described(Namespace(grader=text, env=None, response_format=None, **rest)).grader
    assert found is not None
    return found


def _show(found: Record) -> None:
    from rich.text import Text

    from sharpen.cli.grade_table import faults, number, speed
    from sharpen.cli.table import console
    from sharpen.reports.numbers import show

    screen = console()
    sides = [found["before"], found["after"]]
    names = [f"{side['name']} {side['version'] or ''}".strip() for side in sides]
    steps = f", {found['stage']}: {found['n']:,} rollouts of {found['steps']:,} steps"
    screen.print(Text.assemble("\n", (found["run"], "bold"), steps))
    screen.print(Text.assemble("  graded by ", (names[0], "bold"), ", now by ", (names[1], "bold")))
    if found["unmatched"]:
        screen.print(Text(f"  {found['unmatched']:,} rollouts belong to no row of the data: left out", "yellow"))
    if found["faults"]["before"]:
        screen.print(Text(f"  {found['faults']['before']:,} had no score then: left out", "yellow"))
    if said := faults(found["faults"]["after"]):
        screen.print(Text(f"  faults now: {said}", "yellow"))
    flips, groups, pairs = found["flips"], found["groups"], found["groups"]["pairs"]
    told_apart = pairs["same"] + pairs["reversed"] + pairs["tied"]
    figures = [
        ("mean score", f"{number(found['mean']['before'])} → {number(found['mean']['after'])}"),
        ("rank correlation", f"Kendall τ-b {number(found['kendall'])}, Spearman ρ {number(found['spearman'])}"),
        ("flips", f"{flips['right_to_wrong']:,} right → wrong, {flips['wrong_to_right']:,} wrong → right"),
        ("", f"{flips['right_both']:,} right both times, {flips['wrong_both']:,} wrong both times"),
        ("within groups", f"mean Kendall τ-b {number(groups['kendall'])}"),
        (
            "",
            f"{told_apart:,} pairs were told apart: {pairs['same']:,} stay so, {pairs['reversed']:,} turn round, "
            f"{pairs['tied']:,} are tied now; {pairs['parted']:,} more are told apart",
        ),
        (
            "advantages",
            f"another order in {groups['changed']:,} of {groups['n']:,} groups"
            f" ({show(groups['changed'] / groups['n'] if groups['n'] else None, 'share')})",
        ),
        ("groups that teach", f"{groups['teaches']['before']:,} → {groups['teaches']['after']:,}"),
    ]
    for name, value in figures:
        screen.print(Text.assemble("  ", (f"{name:<19}", "bold"), value))
    _print_steps(screen, found["by_step"])
    _print_examples(screen, found["examples"])
    screen.print(Text(f"\n{speed(found['speed'])}", "dim"))


def _print_steps(screen: Console, steps: Sequence[Record]) -> None:
    from sharpen.cli.grade_table import number
    from sharpen.cli.table import simple

    last = len(steps) - 1
    chosen = sorted({round(place * last / (STEPS - 1)) for place in range(STEPS)}) if steps else []
    table = simple([("step", "left"), *((str(steps[place]["step"]), "right") for place in chosen)])
    for side in ("before", "after"):
        table.add_row(f"mean {side}", *(number(steps[place][side]) for place in chosen))
    screen.print(table)


def _print_examples(screen: Console, examples: Sequence[Record]) -> None:
    from rich.text import Text

    from sharpen.cli.grade_table import number, quoted
    from sharpen.cli.track import clean

    if examples:
        screen.print(Text("Largest disagreements", "bold"))
    for one in examples:
        screen.print(Text(f"  step {one['step']}, {one['id']}  {quoted(one['text'], 80)}"), no_wrap=True)
        for side in ("before", "after"):
            said = Text.assemble(f"    {side:<7}", (number(one[side]["score"]), "bold"), "  ")
            screen.print(said.append(clean(one[side]["explanation"]), "dim"), no_wrap=True, overflow="ellipsis")
