"""Tokens per second of our sampler beside transformers' generate: same weights, same prompts, same process.

    python -m bench.sampler              # about four minutes on 2 cores

Two kinds of work, 64 completions of at most 128 tokens at temperature 1 after prompts of about 45 tokens:
`rft`: 8 prompts × 8 completions, each until its end token (what a step of RFT samples);
`steady`: 64 different prompts, end tokens ignored. The sides take turns, so that a change in the machine's mood
meets both. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from bench.grpo_step import prompts
from sharpen.data.render import Renderer
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler

ROWS = 64
Tokens = tuple[int, ...]


def ours(loaded: Loaded, rows: list[Tokens], stop: frozenset[int], limit: int, seed: int) -> int:
    """Sample with the built-in sampler; returns the tokens made."""
    requests = [Request(prompt, (seed, place)) for place, prompt in enumerate(rows)]
    segments = asyncio.run(LocalSampler(loaded.model, stop).sample(requests, Params(limit)))
    return sum(segment.sampled for segment in segments)


def theirs(plain: Any, rows: list[Tokens], stop: frozenset[int], limit: int, seed: int) -> int:
    """Sample with `generate`; returns the tokens made, those after an end token not counted."""
    torch.manual_seed(seed)
    width = max(map(len, rows))
    padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ends = {"eos_token_id": sorted(stop), "pad_token_id": 0} if stop else {"min_new_tokens": limit}
    made = plain.generate(padded, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=limit, **ends)
    lengths = []
    for row in made[:, width:].tolist():
        end = next((place + 1 for place, token in enumerate(row) if token in stop), len(row))
        lengths.append(end)
    return sum(lengths)


def main() -> None:
    """Measure both sides on both kinds of work."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    loaded = load(options.model, compute_dtype("auto"))
    plain = AutoModelForCausalLM.from_pretrained(loaded.path, dtype=loaded.dtype).eval()
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    distinct = [renderer.prompt(row["messages"]) for row in prompts(ROWS)]
    grouped = [prompt for prompt in distinct[:8] for _ in range(ROWS // 8)]
    sides = {"ours": (ours, loaded), "peer": (theirs, plain)}
    result: dict[str, Any] = {"peer_name": "transformers.generate"}
    for side, model in sides.values():
        side(model, distinct, frozenset(), 4, 0)  # type: ignore[operator]  # warm up
    for work, rows, stop in (("rft", grouped, loaded.stop), ("steady", distinct, frozenset())):
        rates: dict[str, list[float]] = {"ours": [], "peer": []}
        for seed in range(options.rounds):
            for name, (side, model) in sides.items():
                began = time.monotonic()
                tokens = side(model, rows, stop, options.tokens, seed)  # type: ignore[operator]
                rates[name].append(tokens / (time.monotonic() - began))
        medians = {name: statistics.median(values) for name, values in rates.items()}
        result[work] = {"tokens_per_second": rates, "medians": medians, "ratio": medians["ours"] / medians["peer"]}
    result |= {
        "dtype": str(loaded.dtype),
        "threads": torch.get_num_threads(),
        "load_average": {"before": before, "after": os.getloadavg()[0]},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
