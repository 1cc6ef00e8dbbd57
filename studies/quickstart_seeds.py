"""Does the quickstart's claim hold for every seed? Runs its recipe with several and writes what came out.

    python studies/quickstart_seeds.py --seeds 1 2 3 4 5 --threads 1 --jobs 2     # about 45 minutes on 2 cores
    python -m docs.tables                                                         # the table in the README

Results go to studies/quickstart_seeds.json (committed); the runs themselves to --out. Two runs side by side take
one thread each: two busy processes of two threads would stall each other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.runs.statistics import Matrix, arm_difference

ROOT = Path(__file__).resolve().parent.parent
RECIPE = ROOT / "examples" / "quickstart" / "recipe.yaml"
RESULTS = Path(__file__).with_suffix(".json")


def train(seed: int, out: Path, overrides: list[str]) -> None:
    """One run of the recipe; an unfinished one is resumed."""
    folder = out / f"seed-{seed}"
    command = [sys.executable, "-m", "sharpen.cli.main", "run"]
    if (folder / "recipe.yaml").exists():
        command += ["--resume", str(folder)]
    else:
        sets = [f"seed={seed}", *overrides]
        command += [str(RECIPE), "--out", str(folder), *(part for value in sets for part in ("--set", value))]
    threads = next((value.partition("=")[2] for value in overrides if value.startswith("threads=")), "")
    with (out / f"seed-{seed}.log").open("a") as log:
        environment = {**os.environ, **({"OMP_NUM_THREADS": threads} if threads else {})}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def collect(seeds: list[int], out: Path) -> dict[str, Any]:
    """The summaries of all runs, and the differences pooled over items and seeds."""
    runs = {seed: json.loads((out / f"seed-{seed}" / "summary.json").read_text()) for seed in seeds}
    correct = {
        model: np.array(
            [_column(out / f"seed-{seed}" / "evals" / "held_out" / f"{model}.jsonl") for seed in seeds], dtype=float
        )
        for model in ("base", "sft", "rft")
    }
    return {
        "command": "python studies/quickstart_seeds.py " + " ".join(sys.argv[1:]),
        "load_average": os.getloadavg()[0],
        "seeds": {
            str(seed): {"base": run["base"], "stages": run["stages"], "cost": run["cost"]} for seed, run in runs.items()
        },
        "pooled": {
            "sft_minus_base": _pooled(correct["base"], correct["sft"]),
            "rft_minus_sft": _pooled(correct["sft"], correct["rft"]),
        },
    }


def _column(path: Path) -> list[int]:
    return [json.loads(line)["correct"] for line in path.read_text().splitlines()]


def _pooled(before: Matrix, after: Matrix) -> dict[str, Any]:
    """The difference of (seeds, items), with a 95 % bootstrap interval over seeds and items both."""
    difference = arm_difference(before, after, paired=True)
    return {"delta": difference.delta, "ci95": list(difference.ci95)}


def main() -> None:
    """Run and collect."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quickstart-seeds")
    parser.add_argument("--set", action="append", default=[], help="a further override of the recipe")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    overrides = [f"threads={options.threads}", *options.set]
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda seed: train(seed, options.out, overrides), options.seeds))
    results = collect(options.seeds, options.out)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["pooled"], indent=1))


if __name__ == "__main__":
    main()
