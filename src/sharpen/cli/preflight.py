"""`sharpen preflight`: would a recipe's RFT stages learn, on this model or that?"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.cli.bench import rounded, status
from sharpen.cli.run import overrides, unsafe


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen preflight` is told."""
    unsafe(parser)
    overrides(parser, "change the recipe, as in stages.rft.group_size=4; may be repeated")
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file")
    parser.add_argument("--models", metavar="A,B,C", default="", help="try these models (default: the recipe's own)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def preflight(options: Namespace) -> int:
    """Try each model on each RFT stage's prompts, and print what came of it."""
    from sharpen.config.load import load  # imports pydantic

    recipe = load(options.recipe, options.overrides)
    models = [name for name in options.models.split(",") if name]
    with status() as observer:
        from sharpen.stages.preflight import preflight as tried  # imports torch

        trials = tried(recipe, options.recipe.parent, models, observer)
    if options.json:
        print(json.dumps(rounded({"schema_version": 1, "recipe": str(options.recipe), "trials": trials}), indent=2))
    else:
        show(trials)
    return 0


def show(trials: list[dict[str, Any]]) -> None:
    """A table for each stage, with a column for each model, and what it means."""
    from rich.text import Text

    from sharpen.cli.table import console, simple
    from sharpen.reports.probed import rows

    screen = console()
    for stage in dict.fromkeys(trial["stage"] for trial in trials):
        own = [trial for trial in trials if trial["stage"] == stage]
        table = simple([(stage, "left"), *((_name(trial), "left") for trial in own)], wrap=True)
        columns = [dict(rows(trial)) for trial in own]
        for name in dict.fromkeys(name for column in columns for name in column):
            table.add_row(Text(name, "bold"), *(column.get(name, "–") for column in columns))
        screen.print(table)
        for trial in own:
            place = f"{_name(trial)}: " if len(own) > 1 else ""
            screen.print(Text(f"{place}{'. '.join(_capital(said) for said in trial['advice'])}."))
    screen.print(Text("\nNothing was trained and nothing was written.", "dim"))


def _name(trial: Mapping[str, Any]) -> str:
    return Path(trial["model"]).name


def _capital(said: str) -> str:
    return said[0].upper() + said[1:]
