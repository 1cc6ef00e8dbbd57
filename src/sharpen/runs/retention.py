"""Which checkpoints of a stage stay: the newest few, and every so many steps one for good."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

STEP = re.compile(r"step-(\d+)")


def checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoints in a folder by their step, sound or not, the oldest first."""
    found = {int(named[1]): path for path in folder.glob("step-*") if (named := STEP.fullmatch(path.name))}
    return dict(sorted(found.items()))


def kept(steps: Iterable[int], last: int, every: int | None) -> set[int]:
    """The `last` largest of the steps, and all multiples of `every`."""
    newest_first = sorted(steps, reverse=True)
    return {*newest_first[:last], *(step for step in newest_first if every and step % every == 0)}


def remove(folder: Path) -> None:
    """Take a folder away. A crash on the way leaves `.NAME.removed` behind, and never a part under its own name."""
    aside = folder.with_name(f".{folder.name}.removed")
    if aside.exists():
        shutil.rmtree(aside)
    folder.rename(aside)
    shutil.rmtree(aside)
