"""How long SFT on a million rows takes to its first step, and how much memory it needs.

Run as `python -m bench.start [ROWS]`. The rows are written to a temporary folder; the model is tiny and random, so
that what is measured is the reading. Memory is the process's peak, beside that of the same run on a thousand rows.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.config.load import parse
from sharpen.errors import Interrupted
from sharpen.runs.observer import Observer
from tests.tiny import tiny_model

ROWS = 1_000_000
FEW = 1000

FILLER = ("what is the capital of the country?", "how far away is the moon?", "who wrote the book?")


def write(path: Path, rows: int) -> None:
    """Chat rows of some 300 characters, no two equal."""
    filler = itertools.cycle(FILLER)
    with path.open("w") as file:
        for number in range(rows):
            asked = f"Question {number}: {next(filler)} And {next(filler)}"
            turns = [("system", "Answer in one line."), ("user", asked), ("assistant", f"It is {number * 7}. " * 4)]
            row = {"messages": [{"role": role, "content": text} for role, text in turns]}
            file.write(json.dumps(row) + "\n")


class FirstStep(Observer):
    """Ends the run when its first step is done."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        """The first step's line."""
        raise Interrupted("the first step is done")


def measure(folder: Path, rows: int) -> dict[str, Any]:
    """Seconds to the first step, and this process's peak memory."""
    from bench.memory import Watch
    from sharpen.stages import pipeline

    data = folder / f"{rows}.jsonl"
    write(data, rows)
    stage = {"type": "sft", "data": {"path": str(data)}, "epochs": 1, "batch_size": 4}
    recipe = parse({"model": str(tiny_model(folder / f"model-{rows}")), "threads": 1, "stages": [stage]})
    began, cpu = time.monotonic(), time.process_time()
    try:
        pipeline.run(recipe, folder / f"run-{rows}", base=folder, observer=FirstStep())
    except Interrupted:
        pass
    seconds = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    return {"rows": rows, "file_bytes": data.stat().st_size, **seconds, "peak_memory_bytes": Watch().peaks()["max_rss"]}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
        sys.exit()
    many = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    with tempfile.TemporaryDirectory() as name:
        load = os.getloadavg()[0]
        runs = [  # each in a process of its own, so that each has its own peak
            json.loads(
                subprocess.run(
                    [sys.executable, "-m", "bench.start", name, str(rows)],
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                ).stdout.splitlines()[-1]
            )
            for rows in (FEW, many)
        ]
    print(json.dumps({"load_average": load, "runs": runs}, indent=1))
