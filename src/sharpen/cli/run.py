"""`sharpen run`: a recipe goes in, a run directory comes out."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli import notify
from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.config.recipe import Recipe


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen run` is told."""
    parser.add_argument("recipe", nargs="?", type=Path, metavar="RECIPE", help="a YAML file")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run directory (default: runs/RECIPE-DATE-TIME)")
    overrides(parser, "change the recipe, as in stages.rft.steps=20 (with --resume: extend the run); may be repeated")
    unsafe(parser)
    notify.arguments(parser)
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run from its newest sound checkpoint")


def overrides(parser: ArgumentParser, help: str) -> None:
    """The option that changes a recipe's values."""
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help=help)


def unsafe(parser: ArgumentParser) -> None:
    """The option with which an operator does without a sandbox; the run records it."""
    parser.add_argument(
        "--unsafe-run-untrusted-code",
        action=_Unsafe,
        nargs=0,
        help="where no sandbox can be had: grade without one, with all your rights; the run records it",
    )


class _Unsafe(Action):
    """Sets the environment, which worker and rank processes inherit."""

    def __call__(self, *_: object) -> None:
        from sharpen.sandbox.plan import UNSAFE

        os.environ[UNSAFE] = "1"


def run(options: Namespace) -> int:
    """Run a recipe, or resume a run."""
    notices = notify.notices(options.notify)
    if options.resume is not None:
        if options.recipe is not None or options.out is not None:
            raise ConfigError("a resumed run has its recipe and folder already", remedy="Leave out RECIPE and --out")
        options.folder = options.resume
        with notify.notifying(notices, options.folder):
            summary = _resume(options.resume, options.overrides)
    elif options.recipe is None:
        raise ConfigError("no recipe is named", remedy="Write `sharpen run RECIPE` or `sharpen run --resume DIR`")
    else:
        from sharpen.config.load import load  # imports pydantic

        recipe = load(options.recipe, options.overrides)
        options.folder = options.out or default_folder(options.recipe.stem)
        with notify.notifying(notices, options.folder):
            summary = start(recipe, options.folder, base=options.recipe.parent)
    conclude(summary, options.folder)
    return 0


def default_folder(name: str) -> Path:
    """`runs/NAME-20261003-221500`."""
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"


def start(recipe: Recipe, folder: Path, *, base: Path) -> dict[str, Any]:
    """Run a recipe, show its progress, and return its summary: under torchrun an empty one on all ranks but 0."""
    from sharpen.cli.progress import Plan, watching
    from sharpen.stages import pipeline  # imports torch

    plan = Plan(folder, recipe.model, tuple(stage.name for stage in recipe.stages))
    with watching(plan) as observer:
        return pipeline.run(recipe, folder, base=base, observer=observer)


def conclude(summary: Mapping[str, Any], folder: Path, predicted: float | None = None) -> None:
    """Print what came out: the table, the verdict, the time, where the report lies, and what to type next."""
    if not summary:  # a rank that only lent its compute
        return
    from sharpen.cli.table import results, verdict  # imports rich
    from sharpen.reports.next_commands import next_commands
    from sharpen.reports.numbers import duration, finite
    from sharpen.reports.read import recipe_of

    results(summary)
    verdict(summary)
    seconds = finite(summary, "cost", "seconds")
    if seconds is not None:
        print(f"\nTime    {duration(seconds)}{f' (predicted: {duration(predicted)})' if predicted else ''}")
    print(f"Report  {folder / 'report.html'}")
    print("\nNext")
    for command in next_commands(folder, recipe_of(folder), summary, "finished"):
        print(f"  {command.why}\n    {command.line}")


def _resume(folder: Path, overrides: list[str]) -> dict[str, Any]:
    from sharpen.cli.progress import Plan, watching
    from sharpen.reports.numbers import at
    from sharpen.reports.read import read
    from sharpen.stages import pipeline  # imports torch

    before = read(folder)  # whatever is unreadable in it, the pipeline will name
    plan = Plan(folder, str(at(before.recipe, "model") or ""), tuple(stage.name for stage in before.stages))
    with watching(plan) as observer:
        return pipeline.resume(folder, overrides, observer=observer)
