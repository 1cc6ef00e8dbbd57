"""`sharpen report` and `sharpen schema`: what is there already, shown."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def report_arguments(parser: ArgumentParser) -> None:
    """What `sharpen report` is told."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a run directory, finished or not")


def report(options: Namespace) -> int:
    """Write a run's report."""
    from sharpen.reports import html

    print(html.write(options.folder))
    return 0


def schema_arguments(parser: ArgumentParser) -> None:
    """`sharpen schema` is told nothing."""


def schema(options: Namespace) -> int:
    """Print the JSON Schema of a recipe."""
    import json

    from sharpen.config import load  # imports pydantic

    print(json.dumps(load.schema(), indent=2, ensure_ascii=False))
    return 0
