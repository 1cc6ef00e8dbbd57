"""The work of the samplers that `sharpen` is measured against, and its clock; needs the standard library only.

Two kinds of work: `batch`, all prompts at once, and `alone`, the first prompt by itself; both with end tokens ignored.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BUSY = 0.5  # a load average above this disturbs the timing on two cores
WARMUP = 8  # tokens

Prompts = list[list[int]]
Generate = Callable[[Prompts, int], list[int]]
"""From prompts and a limit to the number of new tokens of each."""


def parser(description: str) -> argparse.ArgumentParser:
    """The options that every peer has."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("--model", type=Path, required=True, help="folder in save_pretrained layout")
    options.add_argument("--prompts", type=Path, required=True, help='JSONL with rows {"tokens": [...]}, all sampled')
    options.add_argument("--max-new-tokens", type=int, default=128)
    options.add_argument("--rounds", type=int, default=3, help="measured, after a warm-up")
    return options


def read_prompts(path: Path) -> Prompts:
    """The token ids of each row."""
    return [json.loads(line)["tokens"] for line in path.read_text().splitlines()]


def clock(generate: Generate, prompts: Prompts, limit: int, rounds: int) -> dict[str, Any]:
    """Both kinds of work, each after a short warm-up; exits with 2 where a completion is not `limit` tokens long."""
    batch = seconds(generate, prompts, limit, rounds)
    alone = seconds(generate, prompts[:1], limit, rounds)
    tokens = len(prompts) * limit
    return {
        "batch": {
            "sequences": len(prompts),
            "prompt_tokens": sum(map(len, prompts)),
            "new_tokens": tokens,
            "seconds": batch,
            "tokens_per_second": [tokens / second for second in batch],
            "median_tokens_per_second": tokens / statistics.median(batch),
        },
        "alone": {
            "prompt_tokens": len(prompts[0]),
            "new_tokens": limit,
            "seconds": alone,
            "median_milliseconds_per_token": 1000 * statistics.median(alone) / limit,
        },
    }


def seconds(generate: Generate, prompts: Prompts, limit: int, rounds: int) -> list[float]:
    """Wall clock of each round, prompts included."""
    taken = []
    generate(prompts, min(limit, WARMUP))
    for _ in range(rounds):
        began = time.perf_counter()
        lengths = generate(prompts, limit)
        taken.append(time.perf_counter() - began)
        print(f"{len(prompts)} sequences: {sum(lengths)} tokens in {taken[-1]:.2f} s", file=sys.stderr)
        if lengths != [limit] * len(prompts):
            print(f"not {limit} tokens each: {lengths}", file=sys.stderr)
            sys.exit(2)
    return taken


def load_average() -> float:
    """The last minute's, with a warning where it spoils a measurement."""
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"the machine is busy (load {load:.2f}): these times are not a measurement", file=sys.stderr)
    return load


def cpu() -> dict[str, Any]:
    """The processor's name, the cores this process may use, and its units for narrow products."""
    facts = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in facts.items()}
    units = [flag for flag in fields["flags"].split() if flag.startswith(("avx512_bf16", "avx512_vnni", "amx"))]
    return {
        "model": fields["model name"],
        "family": int(fields["cpu family"]),
        "model_number": int(fields["model"]),
        "cores": len(os.sched_getaffinity(0)),
        "units": units,
    }


def answer(measure: Callable[[], dict[str, Any]]) -> None:
    """Print one JSON object on stdout; whatever libraries print meanwhile goes where stderr goes."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    print(json.dumps(measure(), indent=1), file=stdout, flush=True)
