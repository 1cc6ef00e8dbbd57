"""Is learning unchanged by speed? Our reward curve beside TRL's with fp32 weights: one start, one task, five seeds.

    python -m bench.learning                          # what the CSV lacks, the sides taking turns
    python -m bench.learning --side ours --again      # our side anew, TRL's rows kept
    python -m bench.learning --report                 # summary and plot from the CSV alone

Both sides start from the same folder of weights, an SFT of sharpen's own, and see the same prompts in the same order;
`exact.py` is the reward of both. Ours is `sharpen run` with its defaults, TRL is `trl_learning.py` in the environment
of `requirements-trl.txt`. A side's seed that is in learning.csv is not run again; one that was interrupted starts anew.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from bench import peer
from bench.common import ROOT, machine
from bench.learning_report import Row, report
from sharpen.config.data import ReasoningGymData
from sharpen.data.gym import examples
from sharpen.data.order import indices
from sharpen.runs.store import read_lines

CSV = ROOT / "bench" / "learning.csv"
MODEL = "smollm2-135m-instruct"
TASK = {"generator": "needle_haystack", "params": {"min_num_statements": 3, "max_num_statements": 4}}
SYSTEM = "Answer."  # shorter than the model's own, and so cheaper
LABELS, PROMPTS = (0, 100), (1000, 2000)  # first index and count; the ranges are disjoint
SFT = {"epochs": 3, "batch_size": 16, "optim": {"lr": 5e-5}}

PROMPTS_PER_STEP, GROUP_SIZE, STEPS, MAX_TOKENS = 8, 8, 20, 16
LR, BETA2 = 2e-5, 0.99
MICROBATCH = 32  # TRL's; its size changes no gradient

SEEDS = (1, 2, 3, 4, 5)


class Start(NamedTuple):
    """What both sides begin with."""

    folder: Path
    digest: str
    """The first hex digits of the weights' sha256."""


def main() -> None:
    """Run what is missing and write CSV, summary and plot after each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--side", choices=list(SIDES), help="run this side only")
    parser.add_argument("--again", action="store_true", help="forget what the CSV has of these sides and seeds")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--start", type=Path, help="a model's folder to start from, rather than an SFT made in --out")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "learning", help="for the runs, some GB")
    options = parser.parse_args()
    sides = [options.side] if options.side else list(SIDES)
    if not options.report:
        options.out.mkdir(parents=True, exist_ok=True)
        write_prompts(options.out)
        start = start_of(options.start or make_start(options.out))
        for seed, side in itertools.product(options.seeds, sides):
            if options.again or not _of(side, seed, read_rows()):
                made, facts = SIDES[side](seed, start, options.out)
                rows = read_rows()  # anew: the other side may be at work in another process
                stale = _of(side, seed, rows)
                rows = sorted([*made, *(row for row in rows if row not in stale)])
                write_rows(rows)
                report(rows, {side: {"command": command(), "machine": machine(), **facts}}, SETTINGS)
    if rows := read_rows():
        report(rows, {}, SETTINGS)


def ours(seed: int, start: Start, out: Path) -> tuple[list[Row], dict[str, Any]]:
    """Our rewards of each step, from `sharpen run`."""
    run = out / f"ours-{seed}"
    shutil.rmtree(run, ignore_errors=True)
    stage = {
        "type": "rft",
        "data": {"path": str(out / "prompts.jsonl")},
        "grader": {"type": "plugin", "use": "bench.exact:grade"},
        "algorithm": {"preset": "dapo", "overlong_buffer": 0.0},  # TRL has no such penalty
        "prompts_per_step": PROMPTS_PER_STEP,
        "group_size": GROUP_SIZE,
        "steps": STEPS,
        "sampling": {"temperature": 1.0, "max_tokens": MAX_TOKENS},
        "optim": {"lr": LR, "schedule": "constant", "warmup_ratio": 0.0, "beta2": BETA2},
    }
    sharpen({"model": str(start.folder), "seed": seed, "stages": [stage]}, run)
    seen = [line["prompt"][-1]["content"] for step in range(STEPS) for line in _rollouts(run, step)]
    wanted = [row["messages"][-1]["content"] for row in in_order(out, seed) for _ in range(GROUP_SIZE)]
    if seen != wanted:
        raise RuntimeError(f"{run} saw other prompts, or in another order, than TRL is given")
    rows = [
        Row(
            seed=seed,
            side="ours",
            step=line["step"],
            reward=line["reward"]["mean"],
            groups_with_spread=round((1 - line["no_spread_share"]) * PROMPTS_PER_STEP),
            tokens=line["tokens"]["sampled"],
            start=start.digest,
        )
        for line in read_lines(run / "metrics.jsonl")
    ]
    for heavy in ("stages", "models"):
        shutil.rmtree(run / heavy)
    return rows, {"dtype": "auto (bfloat16 where the hardware has it), fp32 master weights", "versions": _versions()}


def trl(seed: int, start: Start, out: Path) -> tuple[list[Row], dict[str, Any]]:
    """TRL's rewards of each step."""
    options = {
        "--steps": STEPS,
        "--warmup": 0,
        "--prompts-per-step": PROMPTS_PER_STEP,
        "--completions": GROUP_SIZE,
        "--max-new-tokens": MAX_TOKENS,
        "--per-device": MICROBATCH,
        "--lr": LR,
        "--adam-beta2": BETA2,
        "--seed": seed,
    }
    words = list(itertools.chain(*options.items()))
    result = peer.trl("trl_learning", in_order(out, seed), start.folder, words)
    if "failed" in result:
        raise RuntimeError(f"TRL with seed {seed}: {result['failed']}")
    steps = zip(result["reward"], result["groups_with_spread"], result["tokens"], strict=True)
    rows = [Row(seed, "trl", step, *values, start.digest) for step, values in enumerate(steps, 1)]
    return rows, {"settings": {**result["settings"], **result["grpo"]}, "versions": result["versions"]}


SIDES: dict[str, Callable[[int, Start, Path], tuple[list[Row], dict[str, Any]]]] = {"ours": ours, "trl": trl}

SETTINGS: dict[str, Any] = {
    "model": MODEL,
    "task": {**TASK, "system": SYSTEM, "labels": LABELS, "prompts": PROMPTS},
    "sft": SFT,
    "prompts_per_step": PROMPTS_PER_STEP,
    "group_size": GROUP_SIZE,
    "steps": STEPS,
    "max_new_tokens": MAX_TOKENS,
    "temperature": 1.0,
    "loss": "dapo: clip 0.2/0.28, mean over all tokens, no KL, no length penalty",
    "reward": "exact match (bench/exact.py)",
    "optimizer": {"type": "adamw", "lr": LR, "schedule": "constant", "betas": [0.9, BETA2], "weight_decay": 0.0},
    "max_grad_norm": 1.0,
}


def make_start(out: Path) -> Path:
    """The model both sides start from: a short SFT, made once."""
    model = out / "start" / "models" / "sft"
    if not model.exists():
        shutil.rmtree(out / "start", ignore_errors=True)
        answered = [
            {"messages": [*row["messages"], {"role": "assistant", "content": row["answer"]}]}
            for row in problems(*LABELS)
        ]
        _write(out / "labelled.jsonl", answered)
        stage = {"type": "sft", "data": {"path": str(out / "labelled.jsonl")}, **SFT}
        sharpen({"model": MODEL, "seed": 0, "stages": [stage]}, out / "start")
    return model


def start_of(folder: Path) -> Start:
    """The folder and the digest of its weights."""
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Start(folder.resolve(), digest[:12])


def sharpen(recipe: dict[str, Any], run: Path) -> None:
    """`sharpen run` in a process of its own; raises CalledProcessError."""
    path = run.with_suffix(".yaml")
    path.write_text(json.dumps(recipe, indent=1))  # JSON is YAML
    words = [sys.executable, "-m", "sharpen.cli.main", "run", str(path), "--out", str(run)]
    subprocess.run(words, check=True, stdout=sys.stderr, cwd=ROOT)  # where `bench.exact` is found


def problems(first: int, count: int) -> list[dict[str, Any]]:
    """Rows `{"messages", "answer"}`."""
    data = ReasoningGymData.model_validate({**TASK, "start": first, "count": count})
    return [
        {"messages": [{"role": "system", "content": SYSTEM}, *example.messages], "answer": example.item["answer"]}
        for example in examples(data)
    ]


def write_prompts(out: Path) -> None:
    """The pool of prompts, less those that occur among the labelled ones."""
    labelled = {row["messages"][-1]["content"] for row in problems(*LABELS)}
    fresh = [row for row in problems(*PROMPTS) if row["messages"][-1]["content"] not in labelled]
    _write(out / "prompts.jsonl", fresh)


def in_order(out: Path, seed: int) -> list[dict[str, Any]]:
    """The rows of a run, in the order in which sharpen's `rft` stage takes them."""
    pool = list(read_lines(out / "prompts.jsonl"))
    return [dict(pool[index]) for index in indices(len(pool), 0, STEPS * PROMPTS_PER_STEP, (seed, "rft", "order"))]


def read_rows() -> list[Row]:
    """The CSV's rows; none where there is no file."""
    if not CSV.exists():
        return []
    with CSV.open(newline="") as file:
        return [
            Row(
                seed=int(row["seed"]),
                side=row["side"],
                step=int(row["step"]),
                reward=float(row["reward"]),
                groups_with_spread=int(row["groups_with_spread"]),
                tokens=int(row["tokens"]),
                start=row["start"],
            )
            for row in csv.DictReader(file)
        ]


def write_rows(rows: Iterable[Row]) -> None:
    """The CSV, whole or as it was."""
    aside = CSV.with_suffix(".partial")
    with aside.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
    os.replace(aside, CSV)


def command() -> str:
    """What was typed."""
    return " ".join(["python -m bench.learning", *sys.argv[1:]])


def _of(side: str, seed: int, rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if (row.side, row.seed) == (side, seed)]


def _rollouts(run: Path, step: int) -> Sequence[dict[str, Any]]:
    return [dict(line) for line in read_lines(run / "rollouts" / "rft" / f"step-{step + 1:05d}.jsonl")]


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "reasoning-gym")}


if __name__ == "__main__":
    main()
