"""Peak memory of whole runs, measured on random models of real shapes: what `test_fits.py` holds the arithmetic to.

python -m tests.models.measure_memory NAME...     # some measurements anew, into memory.json; no NAME: all

Each is a `sharpen run` in a process of its own: two steps that fill a microbatch, nothing evaluated. Memory does
not depend on how busy a machine is, nor on what the weights are.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from sharpen.models.bases import BASES
from tests.models.shapes import config_of
from tests.runs.lab import write_rows
from tests.tiny import tiny_tokenizer

FILE = Path(__file__).with_name("memory.json")
PROMPT, ANSWER = 128, 32
"""Characters of a prompt and of an answer, a token each."""

ROWS = 64
"""Completions a step of RFT."""

WORKS = {
    "sft gemma 270m": ("gemma-3-270m-it", "sft", "full", "bfloat16"),
    "sft lora gemma 270m": ("gemma-3-270m-it", "sft", "lora", "bfloat16"),
    "sft lora qwen 0.6b": ("qwen3-0.6b", "sft", "lora", "bfloat16"),
    "sft qlora qwen 0.6b": ("qwen3-0.6b", "sft", "qlora", "bfloat16"),
}
"""What is measured: the shape, the stage, what is trained, and the type that is computed in."""


def measure(alias: str, kind: str, trained: str, dtype: str) -> int:
    """The peak of a run, in bytes."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(alias, folder / "model")
        rows = [{"prompt": f"{n:0{PROMPT}}", "completion": f"{n * 7919:0{ANSWER}}"} for n in range(12)]
        data = {"path": write_rows(folder / "rows.jsonl", rows)}
        stage: dict[str, Any] = {"type": kind, "data": data, "optim": {"lr": 1e-6}, "save_every": 1000}
        if kind == "sft":
            stage |= {"epochs": 1, "batch_size": 6}
        else:
            grader = {"type": "plugin", "use": "tests.models.measure_memory:by_chance"}
            stage |= {"grader": grader, "probe": None, "steps": 2, "prompts_per_step": 4, "group_size": ROWS // 4}
            stage |= {"sampling": {"max_tokens": ANSWER}}
        adapter = {} if trained == "full" else {"adapter": {"type": trained, "rank": 16}}
        recipe = {"model": str(model), "dtype": dtype, "threads": 1, **adapter, "stages": [stage]}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "sharpen.cli.main", "run", str(folder / "recipe.yaml")]
        subprocess.run([*command, "--out", str(folder / "run")], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        peak: int = json.loads((folder / "run/summary.json").read_text())["peak_memory_bytes"]
        return peak


def by_chance(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """A reward that differs in every group."""
    return random.random()


def _model(alias: str, folder: Path) -> Path:
    """A bfloat16 model of that shape with random weights; the tokenizer is the tests' own, a token a character."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(config_of(BASES[alias].shape), dtype=torch.bfloat16).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


if __name__ == "__main__":
    for chosen in sys.argv[1:] or WORKS:
        found = json.loads(FILE.read_text()) if FILE.exists() else {}
        alias, kind, trained, dtype = WORKS[chosen]
        peak = measure(alias, kind, trained, dtype)
        entry = {"model": alias, "stage": kind, "trains": trained, "dtype": dtype, "peak_bytes": peak}
        print(chosen, f"{peak / 1e9:.2f} GB", flush=True)
        FILE.write_text(json.dumps({**found, chosen: entry}, indent=2) + "\n")
