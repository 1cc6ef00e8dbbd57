"""`sharpen import`: another trainer's configuration becomes a recipe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from sharpen.errors import ConfigError

TRAINERS = ("trl", "llama-factory", "axolotl")


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen import` is told."""
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a LLaMA-Factory or Axolotl YAML, or a TRL config (YAML or JSON)"
    )
    parser.add_argument("--from", dest="trainer", choices=TRAINERS, help="whose it is (default: told by its keys)")
    parser.add_argument(
        "--out", type=Path, default=Path("recipe.yaml"), metavar="FILE", help="the recipe (default: recipe.yaml)"
    )
    parser.add_argument("--force", action="store_true", help="write over a recipe that is there")


def translate(options: Namespace) -> int:
    """Write the recipe, and say what it does not carry over."""
    from sharpen.runs.store import write_text
    from sharpen.translate.file import as_text, translated

    found = translated(options.file, options.trainer)
    if options.out.exists() and not options.force:
        raise ConfigError(
            "this file is there already", value=str(options.out), remedy="Choose another --out, or --force"
        )
    try:
        write_text(options.out, as_text(found, options.file))
    except OSError as error:
        raise ConfigError(
            f"cannot write the recipe: {error.strerror}", value=str(options.out), remedy="Choose another --out"
        ) from error
    print(f"{options.out}: the recipe of {found.source}'s {options.file.name}")
    _list("Check", found.check)
    _list("Not carried over: it has no equivalent here", [str(entry) for entry in found.left])
    if found.needless:
        print(f"\nMeans nothing here: {', '.join(found.needless)}")
    print(f"\nNext: sharpen bench {options.out}, sharpen run {options.out}")
    return 0


def _list(title: str, lines: Sequence[str]) -> None:
    if lines:
        print("\n".join(["", f"{title}:", *(f"  - {line}" for line in lines)]))
