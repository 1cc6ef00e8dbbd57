"""A made-up run directory: plausible numbers from a seeded generator, measured on nothing.

`python tests/reports/synthetic_run.py DIR` writes one, to look at the report without a run.
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

RECIPE = {
    "model": "smollm2-135m-instruct",
    "seed": 7,
    "threads": 2,
    "dtype": "bfloat16",
    "stages": [{"type": "sft", "name": "sft", "epochs": 2}, {"type": "rft", "name": "rft", "steps": 60}],
    "evals": [{"name": "held_out", "data": {"type": "reasoning_gym", "generator": "chain_sum", "count": 500}}],
    "versions": {
        "sharpen": "0.1.0 (synthetic)",
        "torch": "2.13.0",
        "transformers": "5.17.0",
        "python": "3.11.2",
    },
}
START = 1_790_000_000
RATES = {"base": 0.03, "sft": 0.31, "rft": 0.55}
REMARK = "RFT overfits, were this not synthetic: use more prompts."
NOTE = "SFT's gain is mostly form: look with `sharpen report`."
TEST = "A test of these problems can show differences of about 6.8 points or more."
FORM = {"base": 0.22, "sft": 0.93, "rft": 0.99}


def write(folder: Path, *, rft_steps: int = 60, items: int = 500, finished: bool = True) -> Path:
    """A whole run, or one that stops in the middle of RFT without summary or verdict."""
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    metrics = [*_sft(rng), *_rft(rng, rft_steps)]
    jsonl(folder / "metrics.jsonl", metrics)
    jsonl(folder / "events.jsonl", _events(rft_steps, finished))
    for step in (1, rft_steps // 2, rft_steps):
        jsonl(folder / f"rollouts/rft/step-{step:05d}.jsonl", _rollouts(rng, step))
    shares = {}
    for model in ("base", "sft", "rft") if finished else ("base", "sft"):
        answers = _answers(model, items)
        jsonl(folder / f"evals/held_out/{model}.jsonl", answers)
        shares[model] = {key: sum(answer[key] for answer in answers) / items for key in ("correct", "format")}
    if finished:
        (folder / "summary.json").write_text(json.dumps(_summary(shares, items), indent=1))
    return folder


def jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def _sft(rng: random.Random, steps: int = 40) -> Iterable[dict[str, Any]]:
    for step in range(1, steps + 1):
        loss = 0.35 + 2.4 * math.exp(-step / 7) + rng.gauss(0, 0.05)
        line = {
            **_step("sft", step, steps, loss, rng, {"step": 0.8, "sample": 0, "grade": 0, "train": 0.8}),
            "token_accuracy": 0.9 - 0.55 * math.exp(-step / 8) + rng.gauss(0, 0.015),
        }
        if step % 10 == 0:
            line["validation"] = {"loss": loss + 0.08, "token_accuracy": 0.86 - 0.5 * math.exp(-step / 8)}
        yield line


def _rft(rng: random.Random, steps: int) -> Iterable[dict[str, Any]]:
    for step in range(1, steps + 1):
        done = step / steps
        mean = min(0.99, max(0.01, 0.26 + 0.34 * (1 - math.exp(-2.4 * done)) + rng.gauss(0, 0.035)))
        sample, grade, train = (abs(rng.gauss(m, m / 9)) for m in (2.6 - done, 0.25, 1.4))
        line = {
            **_step(
                "rft",
                step,
                steps,
                rng.gauss(0, 0.02),
                rng,
                {"sample": sample, "grade": grade, "train": train},
            ),
            "reward": {
                "mean": mean,
                "std": math.sqrt(mean * (1 - mean)),
                "by_grader": {"reasoning_gym": mean},
            },
            "no_spread_share": max(0, 0.32 - 0.1 * done + rng.gauss(0, 0.05)),
            "kl": 0.11 * done**1.2 + abs(rng.gauss(0, 0.003)),
            "entropy": 0.62 - 0.36 * done + rng.gauss(0, 0.02),
            "clip_fraction": abs(rng.gauss(0.004, 0.002)),
            "length": {
                "mean": 16 - 6 * done + rng.gauss(0, 0.6),
                "max": rng.randint(24, 64),
                "truncated_share": abs(rng.gauss(0.04 * (1 - done), 0.006)),
            },
            "logprob_gap": {"mean": abs(rng.gauss(0.006, 0.001)), "max": abs(rng.gauss(0.09, 0.03))},
            "policy_lag": 0,
            "faults": {"invalid_return": 1} if step == 23 else {},
        }
        if step % 10 == 0:
            line["validation"] = {"reward": mean - 0.02, "n": 64}
        yield line


def preferences(steps: int) -> list[dict[str, Any]]:
    """The lines of a preference stage: margins grow, and both answers become rarer."""
    rng, lines = random.Random(9), []
    for step in range(1, steps + 1):
        margin = 0.12 * step + rng.gauss(0, 0.02)
        rewards = {"chosen": -0.2 * margin, "rejected": -1.2 * margin, "margins": margin, "accuracies": 0.9}
        line = {
            **_step("dpo", step, steps, math.log1p(math.exp(-margin)), rng, {"step": 1.2, "train": 1.2}),
            "rewards": rewards,
            "logps": {"chosen": -20 - 2 * margin, "rejected": -24 - 12 * margin},
            "kl": 0.01 * step,
        }
        if step % 4 == 0:
            line["validation"] = {"loss": line["loss"] + 0.04, "rewards": {**rewards, "accuracies": 0.8}}
        lines.append(line)
    return lines


def _step(stage: str, step: int, steps: int, loss: float, rng: random.Random, time: dict[str, float]) -> dict[str, Any]:
    return {
        "stage": stage,
        "type": stage,
        "step": step,
        "steps": steps,
        "loss": loss,
        "lr": 2e-5 * min(1, step / 5) * (0.5 + 0.5 * math.cos(math.pi * step / steps)),
        "grad_norm": abs(rng.gauss(0.9, 0.15)) * (3 if step == 31 else 1),
        "time": {"step": sum(time.values()), **time},
        "tokens": {"sampled": 1800, "trained": 1750},
    }


def _events(rft_steps: int, finished: bool) -> Iterable[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"event": "started"},
        {"event": "stage_started", "stage": "sft"},
        {"event": "checkpoint", "stage": "sft", "step": 40, "path": "stages/01-sft/checkpoints/step-00040"},
        {"event": "stage_finished", "stage": "sft"},
        {"event": "stage_started", "stage": "rft"},
        {
            "event": "alert",
            "stage": "rft",
            "step": rft_steps // 3,
            "message": "one grade was left out: invalid_return",
        },
        {"event": "checkpoint", "stage": "rft", "step": rft_steps // 2},
    ]
    if finished:
        events += [{"event": "checkpoint", "stage": "rft", "step": rft_steps}, {"event": "finished"}]
    return [{"time": START + 40 * index, **event} for index, event in enumerate(events)]


def _rollouts(rng: random.Random, step: int) -> Iterable[dict[str, Any]]:
    for example in range(4):
        left, right = rng.randint(10, 99), rng.randint(10, 99)
        for _ in range(8):
            good = rng.random() < 0.5
            answer = left + right if good else left + right + rng.choice((-10, 1, 10))
            yield {
                "example": f"train-{step}-{example}",
                "prompt": _prompt(left, right),
                "text": f"<answer>{answer}</answer>",
                "tokens": 9,
                "finish": "stop",
                "scores": {"reasoning_gym": float(good)},
                "explanation": "",
                "fault": None,
                "reward": float(good),
                "advantage": 0.94 if good else -0.94,
                "version": step - 1,
            }


def _prompt(left: int, right: int) -> list[dict[str, str]]:
    question = f"State the final answer to the following arithmetic problem: {left} + {right} ="
    return [{"role": "user", "content": f"{question}\nAnswer in the form <answer>…</answer>."}]


def _answers(model: str, items: int) -> list[dict[str, Any]]:
    answers = []
    for index in range(items):
        rng = random.Random(f"{model} {index}")
        left, right = 10 + index % 90, 10 + index * 37 % 90
        form = rng.random() < FORM[model]
        good = form and rng.random() < RATES[model] / FORM[model]
        value = left + right if good else left + right + rng.choice((-20, -10, 1, 9, 10))
        rambling = f"To find the answer we add the two numbers. First we look at {left} and then at {right}. " * 4
        answers.append(
            {
                "id": f"item-{index}",
                "prompt": _prompt(left, right),
                "text": f"<answer>{value}</answer>" if form else rambling,
                "finish": "stop" if form else "length",
                "score": float(good),
                "correct": int(good),
                "format": int(form),
                "explanation": f"expected {left + right}",
                "fault": None,
                "samples": [],
            }
        )
    return answers


def _interval(share: float, n: int) -> list[float]:
    half = 1.96 * math.sqrt(share * (1 - share) / n)
    return [max(0.0, share - half), min(1.0, share + half)]


def _summary(shares: Mapping[str, Mapping[str, float]], n: int) -> dict[str, Any]:
    results: dict[str, Any] = {}
    previous = None
    for model, share in shares.items():
        right, form = share["correct"], share["format"]
        results[model] = {
            "score": right,
            "ci95": _interval(right, n),
            "n": n,
            "format": {"score": form, "ci95": _interval(form, n)},
            "avg_at_k": None,
            "pass_at_k": None,
        }
        if previous is not None:
            delta = right - previous["correct"]
            before, after = previous["correct"] / previous["format"], right / form
            gain = (form - previous["format"]) * (before + after) / 2
            spread = [delta - 0.05, delta + 0.05]
            results[model]["vs_previous"] = {
                "delta": delta,
                "ci95": spread,
                "format_gain": gain,
                "task_gain": delta - gain,
            }
        previous = share
    said = [f"{shares[model]['correct']:.0%}" for model in ("base", "sft", "rft")]
    headline = (
        f"Synthetic data: on {n} unseen problems the model went from {said[0]} right to {said[1]} after SFT and "
        f"{said[2]} after RFT; both gains are larger than chance would explain."
    )
    return {
        "schema_version": 1,
        "status": "finished",
        "model": RECIPE["model"],
        "seed": 7,
        "verdict": f"{headline} {REMARK}",
        "headline": headline,
        "remarks": [
            {"kind": "overfitting", "stage": "rft", "eval": "held_out", "main": True, "text": REMARK, "figures": {}},
            {"kind": "mostly_form", "stage": "sft", "eval": "held_out", "main": False, "text": NOTE, "figures": {}},
        ],
        "detectable": {"held_out": {"difference": 0.068, "n": n, "stage": "rft", "power": 0.8, "text": TEST}},
        "base": {"evals": {"held_out": results["base"]}},
        "stages": [
            _outcome("sft", 33.1, {"sampled": 0, "trained": 18_200}, results["sft"]),
            _outcome("rft", 241.7, {"sampled": 108_000, "trained": 105_000}, results["rft"]),
        ],
        "cost": {"seconds": 331.2, "core_seconds": 655.0, "tokens": {"sampled": 108_000, "trained": 123_200}},
        "peak_memory_bytes": 2_140_000_000,
    }


def _outcome(name: str, seconds: float, tokens: dict[str, int], result: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "type": name,
        "model": f"models/{name}",
        "seconds": seconds,
        "tokens": tokens,
        "evals": {"held_out": result},
    }


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
