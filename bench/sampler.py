"""Tokens per second of our sampler beside transformers' generate, same weights, same prompts, same process.

    python -m bench.sampler              # about two minutes on 2 cores

64 sequences of prompts of about 45 tokens, 128 new tokens each at temperature 1, end tokens ignored. The sides take
turns, so that a change in the machine's mood meets both. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time

import torch
import transformers
from transformers import AutoModelForCausalLM

from bench.grpo_step import prompts
from sharpen.data.render import Renderer
from sharpen.models.load import compute_dtype, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler

ROWS = 64


def main() -> None:
    """Measure both sides."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    before = os.getloadavg()[0]
    loaded = load(options.model, compute_dtype("auto"))
    plain = AutoModelForCausalLM.from_pretrained(loaded.path, dtype=loaded.dtype).eval()
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    chosen = [renderer.prompt(row["messages"]) for row in prompts(ROWS)]
    width = max(map(len, chosen))
    padded = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in chosen])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in chosen])
    sampler = LocalSampler(loaded.model, frozenset())  # no stop token: all rows run to the end

    def ours(tokens: int) -> None:
        requests = [Request(prompt, (place,)) for place, prompt in enumerate(chosen)]
        asyncio.run(sampler.sample(requests, Params(tokens)))

    def theirs(tokens: int) -> None:
        plain.generate(
            padded, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=tokens, min_new_tokens=tokens
        )

    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for side in (ours, theirs):
        side(4)  # warm up
    for _ in range(options.rounds):
        for name, side in (("ours", ours), ("peer", theirs)):
            began = time.monotonic()
            side(options.tokens)
            seconds[name].append(time.monotonic() - began)
    rates = {name: ROWS * options.tokens / statistics.median(times) for name, times in seconds.items()}
    print(
        json.dumps(
            {
                "ours": {"tokens_per_second": rates["ours"], "seconds": seconds["ours"]},
                "peer": {
                    "name": "transformers.generate",
                    "tokens_per_second": rates["peer"],
                    "seconds": seconds["peer"],
                },
                "ratio": rates["ours"] / rates["peer"],
                "tokens": ROWS * options.tokens,
                "dtype": str(loaded.dtype),
                "threads": torch.get_num_threads(),
                "load_average": {"before": before, "after": os.getloadavg()[0]},
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
