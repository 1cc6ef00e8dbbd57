"""`sharpen bench`: what a recipe takes on this machine, measured on its own model and data in under a minute."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharpen.cli import machine
from sharpen.cli.run import overrides, unsafe
from sharpen.errors import ConfigError
from sharpen.runs.observer import Observer

BUDGET = 50.0  # seconds


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen bench` is told."""
    unsafe(parser)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="a YAML file")
    overrides(parser, "change the recipe, as in stages.rft.group_size=4; may be repeated")
    parser.add_argument(
        "--budget",
        type=float,
        default=BUDGET,
        metavar="SECONDS",
        help=f"how long this may take, shared among stages and evals (default: {BUDGET:g})",
    )
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def bench(options: Namespace) -> int:
    """Measure a recipe and print its figures."""
    began = time.monotonic()
    if not options.budget > 0:
        raise ConfigError("must be above 0", path="--budget", value=options.budget)
    load, cores = machine.busy(), machine.cores()
    result = {
        "schema_version": 1,
        "recipe": str(options.recipe),
        "cores": cores,
        "load_average": load,
        "busy": load is not None and load > cores / 2,
        **_measured(options, began),
        "seconds": round(time.monotonic() - began, 1),
    }
    if options.json:
        print(json.dumps(rounded(result), indent=2))
    else:
        from sharpen.cli.bench_table import show  # imports rich

        show(result)
    return 0


def _measured(options: Namespace, began: float) -> dict[str, Any]:
    from sharpen.config.load import load  # imports pydantic

    recipe = load(options.recipe, options.overrides)
    if not (recipe.stages or recipe.evals):
        raise ConfigError("there is nothing to measure", path="stages", remedy="Give the recipe a stage or an eval")
    with status() as observer:
        from sharpen.stages.measure import measure  # imports torch

        left = options.budget - (time.monotonic() - began)
        return measure(recipe, options.recipe.parent, left, observer)


@contextmanager
def status() -> Iterator[Observer]:
    """A line on the terminal that says what is being measured; standard output is for the figures."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status("starting") as status:
        yield _Status(lambda said: status.update(Text(said)), lambda said: console.print(Text(said)))


class _Status(Observer):
    def __init__(self, say: Callable[[str], None], keep: Callable[[str], None]) -> None:
        self._say, self._keep = say, keep
        self._doing = ""

    def event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "remote":  # what leaves the machine stays to be read
            self._keep(str(event["message"]))
            return
        self._doing = str(event["message"])
        self._say(self._doing)

    def progress(self, what: str, done: int, total: int) -> None:
        self._say(f"{self._doing}  {what} {done:,}/{total:,}")


def rounded(value: Any) -> Any:
    """Six significant digits: more were never measured."""
    if isinstance(value, Mapping):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
