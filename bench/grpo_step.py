"""Seconds and memory of one GRPO step, sharpen beside TRL, on the work of `bench/README.md`.

    python -m bench.grpo_step                 # both sides, one after the other; about 10 minutes
    python -m bench.grpo_step --skip-peer     # ours alone

Prints one JSON object with `ours`, `peer`, `ratio`, `peak_memory`, `tokens`, `load_average` and `versions`.
The peer runs in an environment of its own, made on first use from `requirements-trl.txt`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.memory import Watch

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / ".venvs" / "trl"
PROMPTS, GROUP, MAX_TOKENS, LR = 8, 8, 128, 1e-5
TOPICS = ("rain", "bread", "the sea", "old maps", "trains", "snow", "a garden", "the moon", "paper", "salt", "rivers",
          "bells", "wool", "glass", "honey", "stairs")  # fmt: skip
BUSY = 0.5


def prompts(count: int) -> list[dict[str, Any]]:
    """Chat rows of about 45 tokens with the model's system turn."""
    texts = [
        f"Tell a friend, in a few plain sentences, what you like about {topic} (version {place})."
        for place, topic in ((place, TOPICS[place % len(TOPICS)]) for place in range(count))
    ]
    return [{"messages": [{"role": "user", "content": text}]} for text in texts]


def ours(model: str, steps: int, warmup: int, budget: int) -> dict[str, Any]:
    """Run our steps in this process: sample, grade (the share of vowels), compare, learn."""
    import torch

    from sharpen.config.optim import Optim
    from sharpen.data.render import Renderer
    from sharpen.models.load import compute_dtype, load
    from sharpen.rl.advantages import group_normalized
    from sharpen.rollout.base import Params, Request
    from sharpen.rollout.local import LocalSampler
    from sharpen.train.engine import Engine
    from sharpen.train.losses import PolicyGradient
    from sharpen.types import Sequence

    loaded = load(model, compute_dtype("auto"))
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    sampler = LocalSampler(loaded.model, loaded.stop)
    total = warmup + steps
    engine = Engine(loaded.model, Optim(lr=LR, schedule="constant", warmup_ratio=0.0), total, budget)
    rows = prompts(total * PROMPTS)
    seconds, sampling, tokens, spread = [], [], [], []
    memory = Watch()
    memory.start()
    for step in range(total):
        began = time.monotonic()
        chosen = [renderer.prompt(row["messages"]) for row in rows[step * PROMPTS : (step + 1) * PROMPTS]]
        requests = [Request(prompt, (0, step, p, s)) for p, prompt in enumerate(chosen) for s in range(GROUP)]
        segments = asyncio.run(sampler.sample(requests, Params(MAX_TOKENS)))
        sampled = time.monotonic()
        batch: list[Sequence] = []
        varied = 0
        for place in range(PROMPTS):
            own = segments[place * GROUP : (place + 1) * GROUP]
            advantages = group_normalized([vowels(renderer.sample(segment).text) for segment in own])
            assert advantages
            varied += any(advantages)
            batch += [
                Sequence(
                    tokens=segment.tokens,
                    mask=segment.mask,
                    atom=str(place),
                    shared=len(chosen[place]),
                    advantages=tuple(advantage if made else 0.0 for made in segment.mask),
                    rollout_logprobs=segment.logprobs,
                )
                for segment, advantage in zip(own, advantages, strict=True)
            ]
        engine.step(batch, PolicyGradient())
        seconds.append(time.monotonic() - began)
        sampling.append(sampled - began)
        tokens.append(sum(segment.sampled for segment in segments))
        spread.append(varied)
        print(f"ours: step {step} {seconds[-1]:.1f} s, {tokens[-1]} tokens", file=sys.stderr, flush=True)
    memory.stop()
    return {
        "seconds_per_step": seconds[warmup:],
        "median": statistics.median(seconds[warmup:]),
        "sampling_median": statistics.median(sampling[warmup:]),
        "tokens_generated_per_step": tokens[warmup:],
        "groups_with_spread_per_step": spread[warmup:],
        "peak_memory_bytes": memory.peaks(),
        "dtype": str(loaded.dtype),
        "versions": {"torch": torch.__version__, "transformers": version("transformers")},
    }


def vowels(text: str) -> float:
    """The reward on both sides: varied in every group, and free."""
    return sum(character in "aeiouAEIOU" for character in text) / max(1, len(text))


def peer_python() -> Path:
    """The interpreter of TRL's environment, which is made on first use."""
    if not PEER.exists():
        print(f"making {PEER}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        pip = [PEER / "bin" / "pip", "install", "-q"]
        subprocess.run([*pip, "torch==2.13.0"], check=True)
        subprocess.run([*pip, "-r", ROOT / "bench" / "requirements-trl.txt"], check=True)
    return PEER / "bin" / "python"


def peer(model: Path, steps: int, warmup: int, per_device: int) -> dict[str, Any]:
    """Run TRL's side in its own environment."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(row) + "\n" for row in prompts((steps + warmup) * PROMPTS))
        file.flush()
        command = [peer_python(), ROOT / "bench" / "trl_grpo.py", "--model", model, "--prompts", file.name]
        options = ["--steps", str(steps), "--warmup", str(warmup), "--per-device", str(per_device)]
        done = subprocess.run([*map(str, command), *options], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    """Measure both sides, ours in a process of its own so that the memory of neither counts for the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--tokens-per-microbatch", type=int, default=2048, help="our microbatch")
    parser.add_argument("--per-device", type=int, default=8, help="TRL's microbatch")
    parser.add_argument("--skip-peer", action="store_true")
    parser.add_argument("--side", choices=["ours"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(ours(options.model, options.steps, options.warmup, options.tokens_per_microbatch)))
        return
    from sharpen.models.load import resolve

    load_average = os.getloadavg()[0]
    if load_average > BUSY:
        print(f"warning: the machine is busy (load {load_average:.2f}); the times mean little", file=sys.stderr)
    again = [sys.executable, "-m", "bench.grpo_step", "--side", "ours", "--model", options.model]
    again += ["--steps", str(options.steps), "--warmup", str(options.warmup)]
    again += ["--tokens-per-microbatch", str(options.tokens_per_microbatch)]
    mine = json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout)
    theirs = (
        None if options.skip_peer else peer(resolve(options.model), options.steps, options.warmup, options.per_device)
    )
    print(
        json.dumps(
            {
                "ours": mine,
                "peer": theirs,
                "ratio": theirs and theirs["median"] / mine["median"],
                "peak_memory": {"ours": mine["peak_memory_bytes"], "peer": theirs and theirs["peak_memory_bytes"]},
                "tokens": {
                    "ours": mine["tokens_generated_per_step"],
                    "peer": theirs and theirs["tokens_generated_per_step"],
                },
                "load_average": {"before": load_average, "after": os.getloadavg()[0]},
                "versions": {"ours": mine["versions"], "peer": theirs and theirs["versions"]},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
