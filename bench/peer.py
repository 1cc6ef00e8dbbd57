"""The peer of the benches, TRL, from outside: its environment, its settings, and ours against the best of them."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.common import ROOT, Measurement, Measurements, Record, answer, peak, whole

PYTHON = ROOT / ".venvs" / "trl" / "bin" / "python"


def options_for(parser: argparse.ArgumentParser, sizes: Sequence[int]) -> None:
    """The options of a bench that tries several of TRL's settings."""
    parser.add_argument("--steps", type=int, default=5, help="measured, after the warm-up")
    parser.add_argument("--warmup", type=int, default=1, help="steps that are not counted")
    parser.add_argument("--skip-ours", action="store_true")
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--adapter", choices=("full", "lora"), default="full", help="what our side trains")
    parser.add_argument("--tokens-per-microbatch", type=int, help="ours; a recipe's default where it is not given")
    parser.add_argument("--per-device", type=_sizes, default=list(sizes), metavar="N,N,...", help="TRL's microbatches")
    parser.add_argument("--bf16-weights", action="store_true", help="TRL with bfloat16 weights too, at its best")


def _sizes(text: str) -> list[int]:
    return [int(size) for size in text.split(",") if size]


def sweep(
    record: Record,
    options: argparse.Namespace,
    script: str,
    rows: Sequence[dict[str, Any]],
    *more: object,
    named: str = "",
) -> None:
    """Measure TRL on the rows at each setting asked for; `named` goes behind the settings' names."""
    from sharpen.models.load import resolve

    def measure(precision: str, size: int) -> None:
        steps = ["--steps", options.steps, "--warmup", options.warmup]
        settings = ["--precision", precision, "--per-device", size, *steps, *more]
        found = trl(script, rows, resolve(options.model), settings)
        record.add(
            "peer", f"{precision}, per_device {size}{named}", {"precision": precision, "per_device": size, **found}
        )

    # Without matrix units bfloat16 is emulated: under autocast a first step was not done after 9 minutes.
    for size in options.per_device:
        measure("float32" if options.no_matrix_units else "autocast", size)
    learners = wide(whole(record.sides["peer"]))
    if options.bf16_weights and learners:
        measure("bfloat16", learners[best(learners)["seconds"]]["per_device"])


def trl(script: str, rows: Sequence[dict[str, Any]], model: Path, options: Sequence[object]) -> Measurement:
    """Run one of TRL's scripts on these rows in TRL's environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
        file.flush()
        settings = ["--model", model, "--rows", file.name, *options]
        return answer([str(python()), "-m", f"bench.{script}", *map(str, settings)])


def python() -> Path:
    """The interpreter of TRL's environment, which is made on first use."""
    if not PYTHON.exists():
        folder = PYTHON.parent.parent
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [str(PYTHON), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, "-r", str(ROOT / "bench" / "requirements-trl.txt")], check=True)
    return PYTHON


def wide(measurements: Measurements) -> Measurements:
    """Those with float32 weights: bfloat16 ones lose updates at a learning rate of 1e-5."""
    return {name: one for name, one in measurements.items() if one["precision"] != "bfloat16"}


def best(measurements: Measurements) -> dict[str, str]:
    """The names of the settings with the least time and with the least memory, chosen separately."""
    return {
        "seconds": min(measurements, key=lambda name: measurements[name]["median"]),
        "memory": min(measurements, key=lambda name: peak(measurements[name])),
    }


def against_best(ours: Measurements, peer: Measurements) -> dict[str, Any]:
    """Ours against the peer's best settings with float32 weights; LoRA against our full fine-tuning.

    `seconds` and `tokens_per_second` are how many times faster ours is, `memory` is our share of the peer's peak.
    """
    found: dict[str, Any] = {}
    if learners := wide(peer):
        chosen = found["peer_best"] = best(learners)
        fast, small = learners[chosen["seconds"]], learners[chosen["memory"]]
        for name, one in ours.items():
            found[name] = {
                "seconds": fast["median"] / one["median"],
                "tokens_per_second": one["tokens_per_second"] / fast["tokens_per_second"],
                "memory": peak(one) / peak(small),
            }
    if {"full", "lora"} <= ours.keys():
        found["lora_over_full"] = ours["full"]["median"] / ours["lora"]["median"]
    return found
