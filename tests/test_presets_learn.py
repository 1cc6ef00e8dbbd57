"""Every preset and every kind of adapter learns the quickstart's task on the real model, in a short form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.config.algorithms import PRESETS
from sharpen.config.load import parse
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline

TASK = {
    "type": "reasoning_gym",
    "generator": "needle_haystack",
    "params": {"min_num_statements": 3, "max_num_statements": 6},
}
GRADER = {"type": "reasoning_gym", "pattern": r"[^\s.,:;]+"}
FLAT = {"schedule": "constant", "warmup_ratio": 0.0}


def metrics(out: Path, model: str, stage: dict[str, Any]) -> list[dict[str, Any]]:
    """The metrics of a run of one stage."""
    pipeline.run(parse({"model": model, "seed": 1, "threads": 1, "stages": [stage]}), out, base=Path())
    return read_lines(out / "metrics.jsonl")


def sft(**changes: Any) -> dict[str, Any]:
    """48 answers, seen once, in batches of 8; held-out answers are looked at twice."""
    rows = {**TASK, "start": 0, "count": 48}
    held = {**TASK, "start": 500_000, "count": 24}
    return {"type": "sft", "data": rows, "validation": held, "batch_size": 8, "eval_every": 1, **changes}


def rft(preset: str, adapter: dict[str, Any]) -> dict[str, Any]:
    """Four prompts, seen in each of six steps: what pays there can be learned quickly."""
    return {
        "type": "rft",
        "data": {**TASK, "start": 1000, "count": 4},
        "grader": GRADER,
        "probe": None,
        "algorithm": {"preset": preset},
        "adapter": adapter,
        "prompts_per_step": 4,
        "group_size": 8,
        "steps": 6,
        "sampling": {"max_tokens": 16},
        "optim": {"lr": 1e-3, **FLAT},
    }


@pytest.fixture(scope="module")
def imitator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model after SFT with all weights."""
    out = tmp_path_factory.mktemp("sft") / "run"
    lines = metrics(out, "smollm2-135m-instruct", sft(epochs=2, eval_every=12, optim={"lr": 1e-4}))
    assert lines[-1]["validation"]["loss"] < 1.5 < 3 < lines[0]["loss"]  # nats a token; 0.8 to 4.4 when written
    return str(out / "models" / "sft")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param({}, id="lora", marks=pytest.mark.long),
        pytest.param({"rslora": True}, id="rslora", marks=pytest.mark.long),
        pytest.param({"dora": True}, id="dora", marks=pytest.mark.long),
    ],
)
def test_an_adapter_learns_the_task_by_imitation(tmp_path: Path, kind: dict[str, Any]) -> None:
    adapter = {"type": "lora", "rank": 8, "alpha": 16, **kind}
    lines = metrics(tmp_path / "run", "smollm2-135m-instruct", sft(eval_every=6, adapter=adapter, optim={"lr": 1e-3}))
    assert lines[-1]["validation"]["loss"] < 2.0 < 3 < lines[0]["loss"]


@pytest.mark.parametrize(
    "preset",
    [pytest.param(name, marks=[] if name == "dapo" else [pytest.mark.long]) for name in sorted(PRESETS)],
)
def test_a_preset_learns_the_task_from_rewards(tmp_path: Path, imitator: str, preset: str) -> None:
    """The share of right answers in the last two of six steps, over 64 rollouts, against that of the first, over 32."""
    lines = metrics(tmp_path / "run", imitator, rft(preset, {"type": "lora", "rank": 8, "alpha": 16}))
    rewards = [line["reward"]["mean"] for line in lines]
    assert len(rewards) == 6
    assert (rewards[4] + rewards[5]) / 2 > rewards[0] + 0.1, rewards
    (gap,) = [line for line in read_lines(tmp_path / "run" / "events.jsonl") if line["event"] == "parity"]
    assert gap["logprob_gap_mean"] <= 0.02  # 0.005 when written
