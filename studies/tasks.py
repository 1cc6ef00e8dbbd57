"""What are the tasks of examples/tasks worth on the default model? Runs every recipe with several seeds.

    python examples/tasks/make.py                 # their rows
    python studies/tasks.py --seeds 1 2 3         # seed by seed, each over all tasks; goes on where it was stopped
    python -m docs.tables                         # the tables of docs/tasks.md and of each task's README

Results go to studies/tasks.json (committed) after every run; the runs themselves to --out. A run whose figures are
there already is skipped; `--again NAME` makes it once more. Scores of every item are kept, so that differences can be
pooled over items and seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.runs.statistics import Matrix, arm_difference, arm_interval
from sharpen.runs.store import read_lines, write_text

ROOT = Path(__file__).resolve().parent.parent
TASKS = ROOT / "examples" / "tasks"
RESULTS = Path(__file__).with_suffix(".json")
CORRECT = 1 - 1e-9
"""A score from here on is right."""

Document = dict[str, Any]


def recipes() -> dict[str, Path]:
    """Every recipe, as `TASK` or `TASK-VARIANT`."""
    paths = sorted(TASKS.glob("*/recipe*.yaml"))
    return {path.parent.name + path.stem.removeprefix("recipe"): path for path in paths}


def train(recipe: Path, seed: int, folder: Path, threads: int) -> None:
    """One run of a recipe; an unfinished one is resumed."""
    command = [sys.executable, "-m", "sharpen.cli.main", "run"]
    if (folder / "recipe.yaml").exists():
        command += ["--resume", str(folder)]
    else:
        command += [str(recipe), "--out", str(folder), "--set", f"seed={seed}", "--set", f"threads={threads}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)


def drop_weights(folder: Path) -> None:
    """Leave the words and figures of a run that is collected; its weights are 2 GB."""
    for heavy in ("stages", "models"):
        shutil.rmtree(folder / heavy)


def collect(folder: Path) -> Document:
    """The figures of one run, and each item's score by each model."""
    summary = json.loads((folder / "summary.json").read_text())
    stages = summary["stages"]
    models = ["base", *(stage["name"] for stage in stages)]
    held_out = folder / "evals" / "held_out"
    return {
        "seconds": summary["cost"]["seconds"],
        "stage_seconds": {stage["name"]: round(stage["seconds"], 1) for stage in stages},
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "in_form": {name: _share(read_lines(held_out / f"{name}.jsonl"), "format") for name in models},
        "items": {
            name: [round(line["score"], 4) for line in read_lines(held_out / f"{name}.jsonl")] for name in models
        },
    }


def pooled(runs: list[Document]) -> Document:
    """Accuracy and mean score of each model, and of each against the one before, over items and seeds."""
    scores: dict[str, Matrix] = {
        model: np.array([run["items"][model] for run in runs], dtype=np.float64) for model in runs[0]["items"]
    }
    right: dict[str, Matrix] = {model: (values >= CORRECT).astype(np.float64) for model, values in scores.items()}
    models = list(scores)
    return {
        "seeds": len(runs),
        "n": scores["base"].shape[1],
        "accuracy": {model: _level(values) for model, values in right.items()},
        "score": {model: _level(values) for model, values in scores.items()},
        "gained": {
            after: {
                "accuracy": difference(right[before], right[after]),
                "score": difference(scores[before], scores[after]),
            }
            for before, after in pairwise(models)
        },
    }


def difference(before: Matrix, after: Matrix) -> Document:
    """The mean difference of (seeds, items), with its 95 % interval over items and, of several, seeds."""
    found = arm_difference(before, after, paired=True)
    return {"delta": found.delta, "ci95": list(found.ci95), "shown": found.shown}


def compared(one: list[Document], other: list[Document]) -> Document:
    """How much more one recipe gets right than another on the same items, stage by stage, over the seeds both have."""
    seeds = min(len(one), len(other))

    def right(runs: list[Document], model: str) -> Matrix:
        scores = np.array([run["items"][model] for run in runs[:seeds]], dtype=np.float64)
        return (scores >= CORRECT).astype(np.float64)

    return {"seeds": seeds, **{model: difference(right(other, model), right(one, model)) for model in one[0]["items"]}}


def keep(results: Document) -> None:
    """Pool anew what has changed, and write the results; a list of numbers stands on one line."""
    runs = {name: list(by_seed.values()) for name, by_seed in sorted(results["runs"].items()) if by_seed}
    results["pooled"] = {name: pooled(of_task) for name, of_task in runs.items()}
    if {"arithmetic-worked", "arithmetic-alone"} <= set(runs):
        results["worked_minus_alone"] = compared(runs["arithmetic-worked"], runs["arithmetic-alone"])
    text = json.dumps(results, indent=1)
    write_text(RESULTS, re.sub(r"\[[-\d.e,\s]+\]", lambda found: " ".join(found[0].split()), text) + "\n")


def _level(values: Matrix) -> Document:
    return {"mean": float(values.mean()), "ci95": list(arm_interval(values))}


def _share(lines: list[Document], field: str) -> float | None:
    known = [line[field] for line in lines if line[field] is not None]
    return sum(known) / len(known) if known else None


def main() -> None:
    """Run what is not there yet, seed by seed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--names", nargs="+", choices=recipes(), default=list(recipes()), metavar="NAME")
    parser.add_argument("--again", nargs="+", choices=recipes(), default=[], metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "tasks")
    options = parser.parse_args()
    results: Document = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    results["command"] = "python studies/tasks.py --seeds " + " ".join(map(str, options.seeds))
    for name in options.again:
        results["runs"].pop(name, None)
        for folder in options.out.glob(f"{name}-seed-*/"):
            shutil.rmtree(folder)
    failed: list[str] = []
    for seed in options.seeds:
        for name in options.names:
            done = results["runs"].setdefault(name, {})
            if str(seed) in done:
                continue
            folder, load = options.out / f"{name}-seed-{seed}", round(os.getloadavg()[0], 2)
            try:
                train(recipes()[name], seed, folder, options.threads)
            except subprocess.CalledProcessError as error:
                failed.append(f"{name} seed {seed}: exit code {error.returncode}, see {folder.with_suffix('.log')}")
                print(failed[-1], flush=True)
                continue
            done[str(seed)] = {"threads": options.threads, "load_average": load, **collect(folder)}
            keep(results)
            drop_weights(folder)
            told = {model: round(level["mean"], 3) for model, level in results["pooled"][name]["accuracy"].items()}
            print(f"{name} seed {seed}: {done[str(seed)]['seconds']:.0f} s, accuracy over seeds {told}", flush=True)
    keep(results)
    sys.exit("\n".join(failed) or None)


if __name__ == "__main__":
    main()
