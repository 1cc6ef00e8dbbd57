"""Write the rows of the tasks beside their recipes: NAME/data/{sft,rft,validation,test}.jsonl.

    python examples/tasks/make.py                        # all nine
    python examples/tasks/make.py classification --seed 2

A task's `data.py` says how one row is drawn and how many each file has; this file draws them so that no prompt occurs
twice, in one file or in two. The rows are our own, under this repository's licence (Apache-2.0).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
from pathlib import Path
from typing import Any, Protocol, cast

HERE = Path(__file__).resolve().parent
NAMES = tuple(sorted(path.parent.name for path in HERE.glob("*/data.py")))
"""The tasks."""

HELD_OUT = ("validation", "test")
"""Files that draw from values which no training row has."""

Row = dict[str, Any]


class Task(Protocol):
    """What a `data.py` has."""

    COUNTS: dict[str, int]
    """Rows of each file."""

    def row(self, draw: random.Random, held_out: bool) -> Row:
        """One row: `prompt`, `completion`, and the fields that the grader reads."""


def task(name: str) -> Task:
    """The module `NAME/data.py`."""
    spec = importlib.util.spec_from_file_location(f"{name}_data", HERE / name / "data.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Task, module)


def rows(name: str, seed: int = 0) -> dict[str, list[Row]]:
    """The rows of each file; the same seed draws the same ones."""
    drawn_by, parts, seen = task(name), dict[str, list[Row]](), set[str]()
    for part, count in drawn_by.COUNTS.items():
        draw = random.Random(f"{seed} {part}")
        parts[part] = []
        while len(parts[part]) < count:
            row = drawn_by.row(draw, part in HELD_OUT)
            if (prompt := " ".join(row["prompt"].lower().split())) not in seen:
                seen.add(prompt)
                parts[part].append(row)
    return parts


def write(name: str, folder: Path, seed: int = 0) -> None:
    """Write the files of one task into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in rows(name, seed).items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")


def main() -> None:
    """Write the files of the tasks that are named, or of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other rows")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in NAMES]:
        parser.error(f"there is no task {unknown[0]!r}; the tasks are {', '.join(NAMES)}")
    for name in options.names or NAMES:
        write(name, HERE / name / "data", options.seed)
        print(f"{name}: {', '.join(f'{part} {count}' for part, count in task(name).COUNTS.items())}")


if __name__ == "__main__":
    main()
