"""A pipeline that trains nothing but tells what a real one would.

`PYTHONPATH=src:. python tests/cli/fakes.py [SECONDS_PER_STEP]` shows its progress.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sharpen.stages
from sharpen.runs.observer import Observer

RECIPE = """
model: smollm2-135m-instruct
stages:
  - {type: sft, data: {path: labelled.jsonl}, epochs: 3}
  - {type: rft, data: {type: reasoning_gym, generator: chain_sum, count: 50}, grader: {type: math}, steps: 12}
evals:
  - {name: held_out, data: {type: reasoning_gym, generator: chain_sum, start: 900, count: 500}, grader: {type: math}}
"""

SUMMARY: dict[str, Any] = {
    "schema_version": 1,
    "status": "finished",
    "model": "smollm2-135m-instruct",
    "seed": 7,
    "verdict": "On 512 held-out problems the base model gets 2.1 % right; SFT raises this to 27.3 %; RFT to 45.7 %.",
    "base": {
        "evals": {
            "held_out": {
                "score": 0.021,
                "ci95": [0.011, 0.034],
                "n": 512,
                "format": {"score": 0.217, "ci95": [0.18, 0.25]},
                "found": {"score": 0.314, "ci95": [0.28, 0.35]},
                "avg_at_k": None,
                "pass_at_k": None,
            }
        }
    },
    "stages": [
        {
            "name": "sft",
            "type": "sft",
            "model": "models/sft",
            "seconds": 33.1,
            "tokens": {"sampled": 0, "trained": 1200},
            "evals": {
                "held_out": {
                    "score": 0.273,
                    "ci95": [0.236, 0.313],
                    "n": 512,
                    "format": {"score": 0.951, "ci95": [0.93, 0.97]},
                    "found": {"score": 0.305, "ci95": [0.27, 0.34]},
                    "avg_at_k": None,
                    "pass_at_k": None,
                    "vs_previous": {"delta": 0.252, "ci95": [0.213, 0.291], "format_gain": 0.141, "task_gain": 0.111},
                }
            },
        },
        {
            "name": "rft",
            "type": "rft",
            "model": "models/rft",
            "seconds": 201.4,
            "tokens": {"sampled": 9000, "trained": 9000},
            "evals": {
                "held_out": {
                    "score": 0.457,
                    "ci95": [0.414, 0.5],
                    "n": 512,
                    "format": {"score": 0.984, "ci95": [0.97, 0.99]},
                    "found": {"score": 0.46, "ci95": [0.42, 0.5]},
                    "avg_at_k": {"k": 4, "score": 0.412, "ci95": [0.38, 0.44]},
                    "pass_at_k": {"k": 4, "score": 0.631, "ci95": [0.6, 0.66]},
                    "vs_previous": {"delta": 0.184, "ci95": [0.139, 0.229], "format_gain": 0.012, "task_gain": 0.172},
                }
            },
        },
    ],
    "cost": {"seconds": 287.4, "core_seconds": 574.8, "tokens": {"sampled": 9000, "trained": 10200}},
    "peak_memory_bytes": 2_100_000_000,
}


class FakePipeline:
    """Stands in for `sharpen.stages.pipeline`."""

    def __init__(self, error: Exception | None = None, pause: float = 0.0) -> None:
        self.error = error
        self.pause = pause
        self.calls: list[dict[str, Any]] = []

    def run(self, recipe: Any, out: Path, *, base: Path, observer: Observer) -> dict[str, Any]:
        self.calls.append({"recipe": recipe, "out": out, "base": base})
        out.mkdir(parents=True)
        (out / "recipe.yaml").write_text("model: smollm2-135m-instruct\n")
        return self._tell(observer)

    def resume(self, out: Path, overrides: Sequence[str], *, observer: Observer) -> dict[str, Any]:
        self.calls.append({"out": out, "overrides": list(overrides)})
        return self._tell(observer)

    def _tell(self, observer: Observer) -> dict[str, Any]:
        for kind, told in story():
            if kind == "progress":
                observer.progress(*told)
            else:
                getattr(observer, kind)(told)
            time.sleep(self.pause if kind == "metrics" else self.pause / 30)
            if self.error and kind == "metrics" and told["step"] == 3:
                raise self.error
        return SUMMARY


def story(sft_steps: int = 8, rft_steps: int = 12) -> Iterator[tuple[str, Any]]:
    """What an observer is told in a run."""
    rng = random.Random(7)
    yield "event", {"time": 1.0, "event": "started", "model": "m", "stages": ["sft", "rft"]}
    yield "event", {"time": 1.1, "event": "held_out_checked", "dropped": {"held_out": 3, "validation": 0}}
    yield from _eval("base", 0.021)
    for name, steps in (("sft", sft_steps), ("rft", rft_steps)):
        yield "event", {"time": 2.0, "event": "stage_started", "stage": name, "type": name}
        for step in range(1, steps + 1):
            if name == "rft":
                yield from (("progress", ("sample", made, 2048)) for made in range(0, 1024, 64))
                yield "rollout", rollout(rng, step)
            yield "metrics", metrics(rng, name, step, steps)
            if step == 1 and name == "rft":
                yield "event", {"time": 3.0, "event": "parity", "logprob_gap_mean": 0.0061, "logprob_gap_max": 0.09}
            if step == steps // 2:
                yield "event", {"time": 3.0, "event": "checkpoint", "stage": name, "step": step, "path": "x"}
                alert = {"kind": "grader", "message": "2 grades were left out: timeout"}
                yield "event", {"time": 3.1, "event": "alert", "stage": name, "step": step, **alert}
        yield "event", {"time": 4.0, "event": "stage_finished", "stage": name}
        yield from _eval(name, 0.273 if name == "sft" else 0.457)
    yield "event", {"time": 5.0, "event": "finished"}


def metrics(rng: random.Random, stage: str, step: int, steps: int) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    times = {"step": 3.4, "sample": 2.0, "grade": 0.1, "train": 1.3} if stage == "rft" else {"step": 1.1, "train": 1.1}
    line: dict[str, Any] = {
        "stage": stage,
        "type": stage,
        "step": step,
        "steps": steps,
        "loss": 0.3 + 2 * math.exp(-step / 5) + rng.gauss(0, 0.03),
        "lr": 1e-5,
        "grad_norm": 1.0,
        "time": times,
        "tokens": {"sampled": 1800 if stage == "rft" else 0, "trained": 1700},
    }
    if stage == "sft":
        return {**line, "token_accuracy": 0.9 - 0.5 * math.exp(-step / 4)}
    line |= {"reward": {"mean": 0.3 + 0.02 * step + rng.gauss(0, 0.01), "std": 0.4, "by_grader": {"math": 0.4}}}
    line |= {"kl": 0.002 * step, "length": {"mean": 14.2, "max": 40, "truncated_share": 0.0}}
    if step % 5 == 0:
        line["validation"] = {"reward": 0.31, "n": 64}
    return line


def rollout(rng: random.Random, step: int) -> dict[str, Any]:
    """A line of rollouts/."""
    left, right = rng.randint(10, 99), rng.randint(10, 99)
    question = f"State the final answer to the following arithmetic problem: {left} + {right} ="
    return {
        "example": f"e{step}",
        "prompt": [{"role": "user", "content": question}],
        "text": f"\x1b[31m<answer>\n{left + right}</answer>",
        "reward": 1.0,
        "scores": {"math": 1.0},
        "fault": None,
        "version": step - 1,
    }


def install(patch: Any, name: str, module: Any) -> Any:
    """Put a fake in the place of `sharpen.stages.NAME`."""
    patch.setitem(sys.modules, f"sharpen.stages.{name}", module)
    patch.setattr(sharpen.stages, name, module, raising=False)
    return module


def _eval(model: str, score: float) -> Iterator[tuple[str, Any]]:
    for done in range(0, 513, 64):
        yield "progress", (f"eval held_out on {model}, greedy", done, 512)
    yield "event", {"time": 2.0, "event": "evaluated", "eval": "held_out", "model": model, "score": score}


def demo(pause: float) -> None:
    """A whole run through the command line, slow enough to watch."""
    import tempfile

    import pytest

    from sharpen.cli.main import main

    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        install(patch, "pipeline", FakePipeline(pause=pause))
        recipe = Path(name) / "recipe.yaml"
        recipe.write_text(RECIPE)
        print(json.dumps(main(["run", str(recipe), "--out", f"{name}/run"])))


if __name__ == "__main__":
    demo(float(sys.argv[1]) if len(sys.argv) > 1 else 0.3)
