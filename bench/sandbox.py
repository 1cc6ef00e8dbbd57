"""What the sandbox costs: a run of its own for each grade, with and without numpy, many at once, and one that stays.

    python -m bench.sandbox [--runs 5000] [--out bench/sandbox.json]

`fresh` figures are milliseconds from asking for a run to its answer.
`fresh_runs_per_second` is that of the two
workers a GraderPool has; `persistent_grades_per_second` that of one and of two, whose threads get into each other's way
where a grade takes no time at all. `growth` compares this process and the zygote before and after
`--runs` runs: descriptors, processes, resident memory. The peer is a plain `python -c` with no walls at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.common import BUSY, machine
from sharpen.config.graders import Python
from sharpen.graders.python import PythonGrader
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits
from sharpen.sandbox.workers import Pool
from sharpen.types import Example, Grade, Sample

STDLIB = "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])\n"
NUMPY = "import numpy as np\n" + STDLIB
PAIR = (Example("e", (), {"answer": "7"}), Sample("7"))


def fresh(source: str, repeats: int) -> dict[str, float]:
    """Milliseconds of a fresh run, after a few to warm up."""
    grader = PythonGrader(Python(source=source))
    worker = grader.worker()
    times = [_timed(lambda: grader.grade(worker, *PAIR)) for _ in range(repeats + 5)][5:]
    worker.kill()
    quartiles = statistics.quantiles(times, n=20)
    return {"median": statistics.median(times), "p95": quartiles[18], "runs": repeats}


def plain(repeats: int) -> dict[str, float]:
    """Milliseconds of the same in a plain process without walls."""
    command = [sys.executable, "-I", "-S", "-c", f"{STDLIB}print(grade({{'output_text': '7'}}, {{'answer': '7'}}))"]
    times = [_timed(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)) for _ in range(repeats)]
    return {"median": statistics.median(times), "runs": repeats}


def throughput(config: Python, grades: int, workers: int) -> float:
    """Grades a second of a pool with so many workers."""
    grader = PythonGrader(config)

    async def measure() -> float:
        with Pool(grader.worker, size=workers) as pool:
            await pool.each(_graded(grader), [PAIR] * 20)
            began = time.perf_counter()
            given = await pool.each(_graded(grader), [PAIR] * grades)
            seconds = time.perf_counter() - began
            assert all(grade.score == 1.0 for grade in given)
            return grades / seconds

    return asyncio.run(measure())


def growth(runs: int) -> dict[str, Any]:
    """Descriptors, processes and memory of this process and of the zygote, before and after so many runs."""
    with Jail(plan.blueprint(plan.isolation())) as jail:
        before: dict[str, int] = {}
        for number in range(runs + 100):
            if number == 100:
                before = _held()
            with jail.run(STDLIB, Limits()) as run:
                assert run.loaded().kind == "value"
                assert run.call("grade", {"output_text": "7"}, {"answer": "7"}).value == 1.0
        time.sleep(0.1)  # the last run is being reaped
        after = _held()
    return {"runs": runs, "before": before, "after": after}


def main() -> None:
    """Measure, and print the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000, help="of the growth test")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: this machine is busy (load average {load:.1f}): these times mean little", file=sys.stderr)
    document = {
        "command": [shlex.join(["python", "-m", "bench.sandbox", *sys.argv[1:]])],
        "machine": machine(),
        "isolation": plan.isolation(),
        "user": "root" if os.geteuid() == 0 else "unprivileged",
        "ours": {
            "fresh_stdlib_ms": fresh(STDLIB, 300),
            "fresh_numpy_ms": fresh(NUMPY, 300),
            "fresh_runs_per_second": throughput(Python(source=STDLIB), 1000, 2),
            "persistent_grades_per_second": {
                str(workers): throughput(Python(source=STDLIB, persistent=True), 20_000, workers) for workers in (1, 2)
            },
            "growth": growth(options.runs),
        },
        "peer": {"plain_process_ms": plain(50)},
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "kernel": platform.release()},
    }
    text = json.dumps(document, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def _graded(grader: PythonGrader) -> Callable[[Any, Sequence[Any]], Grade]:
    return lambda worker, pair: grader.grade(worker, *pair)


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return 1000 * (time.perf_counter() - began)


def _held() -> dict[str, int]:
    this = psutil.Process()
    family = this.children(recursive=True)
    return {
        "descriptors": this.num_fds() + sum(child.num_fds() for child in family),
        "processes": len(family),
        "resident_bytes": this.memory_info().rss + sum(child.memory_info().rss for child in family),
    }


if __name__ == "__main__":
    main()
