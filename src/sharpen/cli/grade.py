"""`sharpen grade`: look a grader over, before it teaches anything."""

from __future__ import annotations

import asyncio
import json
import math
from argparse import ArgumentParser, Namespace
from pathlib import Path

from sharpen.cli.bench import status
from sharpen.cli.evaluate import described
from sharpen.cli.run import unsafe
from sharpen.errors import ConfigError

FAULTY = 1
"""The exit code of a grader with faults, where --strict asks for one."""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen grade` is told."""
    unsafe(parser)
    parser.add_argument(
        "--grader", required=True, help="a type such as math, a YAML file, or a grader as in a recipe: '{type: ...}'"
    )
    parser.add_argument(
        "--data", required=True, help="a data file, a hub dataset, or a source as in a recipe: '{type: ...}'"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="texts to grade, with `id` or in the rows' order; rollouts too"
    )
    parser.add_argument("--model", metavar="M", help="draw the texts from this model")
    parser.add_argument("--k", type=int, default=8, metavar="K", help="so many for each row (default: 8)")
    parser.add_argument("--temperature", type=float, default=1.0, metavar="T", help="for those (default: 1)")
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="the longest (default: 128)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for those (default: 0)")
    parser.add_argument(
        "--gold", metavar="FIELD", help="the rows' reference answers: a field or a template (default: answer)"
    )
    parser.add_argument("--red-team", action="store_true", help="attack the grader with answers that deserve nothing")
    parser.add_argument(
        "--threshold", type=finite, metavar="T", help="the score that is full marks (default: 1, or the range's top)"
    )
    parser.add_argument("--labels", metavar="FIELD", help="people's labels in samples or rows, to hold it against")
    parser.add_argument("--passing", type=finite, metavar="N", help="from which label on a text is good (default: 1)")
    parser.add_argument(
        "--strict", action="store_true", help="exit with 1 where a gold answer fails or an attack succeeds"
    )
    parser.add_argument("--json", action="store_true", help="print all grades as one JSON object")


def finite(text: str) -> float:
    """A number that JSON has too; anything else is argparse's to refuse."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def grade(options: Namespace) -> int:
    """Grade samples, gold answers and attacks, and print what came of it."""
    if options.k < 1:
        raise ConfigError("must be 1 or more", path="--k", value=options.k)
    config = described(Namespace(**{**vars(options), "env": None, "response_format": None, "samples": options.k}))
    from sharpen.lab import grading

    wanted = grading.Wanted(
        samples=options.samples,
        model=options.model or "",
        gold=options.gold or "",
        red_team=options.red_team,
        threshold=options.threshold,
        labels=options.labels or "",
        passing=options.passing,
        seed=options.seed,
    )
    with status() as observer:
        result = asyncio.run(grading.grade(config, wanted, base=Path.cwd(), observer=observer))
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        from sharpen.cli.grade_table import show  # imports rich

        show(result)
    return FAULTY if options.strict and not grading.faultless(result) else 0
