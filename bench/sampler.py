"""Tokens per second of our sampler, beside transformers' generate in bfloat16 and float32.

    python -m bench.sampler                                   # all of it
    python -m bench.sampler --out FILE --works steady,queue   # or a part a call, merged into a file

Four kinds of work at temperature 1, after prompts of about 45 tokens:
`steady`: 64 sequences side by side, 128 tokens each, end tokens ignored;
`queue`: 512 sequences of 8 to 256 tokens (log-uniform) through the same 64 rows; `generate` has no
  queue, so ours only;
`alone`: one sequence of 128 tokens;
`rft`: 8 prompts × 8 completions of at most 128 tokens, each until its end token: what a step of RFT samples.
The sides take turns, a process each time, so that a change in the machine's mood meets all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from bench.common import Gauge, Measurement, Measurements, Record, apart, arguments, joined, picked, prepared, prompts

ROWS, QUEUED, TOKENS = 64, 512, 128
SHORTEST, LONGEST = 8, 256
WORKS = ("steady", "queue", "alone", "rft")
PEERS = ("bfloat16", "float32")
WARM = 4
"""Tokens of each sequence before the clock starts."""

Tokens = tuple[int, ...]
Run = Callable[[list[Tokens], frozenset[int], list[int], int], int]
"""From prompts, tokens that end a completion, the limit of each and a seed to the tokens made."""


def limits(count: int, longest: int = LONGEST) -> list[int]:
    """Lengths drawn log-uniformly from `SHORTEST` to `longest`, the same ones every time."""
    import numpy as np

    draws = np.random.default_rng(0).uniform(np.log(SHORTEST), np.log(longest + 1), count)
    return [int(length) for length in np.exp(draws)]


def ours(model: str, dtype: Any, rows: int) -> Run:
    """The built-in sampler."""
    from sharpen.models.load import compute_dtype, load
    from sharpen.rollout.base import Params, Request
    from sharpen.rollout.local import LocalSampler

    loaded = load(model, compute_dtype(dtype))

    def run(chosen: list[Tokens], stop: frozenset[int], bounds: list[int], seed: int) -> int:
        pairs = zip(chosen, bounds, strict=True)
        requests = [Request(prompt, (seed, place), bound) for place, (prompt, bound) in enumerate(pairs)]
        sampler = LocalSampler(loaded.model, stop, max_rows=rows)
        segments = asyncio.run(sampler.sample(requests, Params(max(bounds))))
        return sum(segment.sampled for segment in segments)

    return run


def theirs(model: str, dtype: Any, _: int) -> Run:
    """`generate`, on all rows at once; tokens after an end token are not counted."""
    import torch
    from transformers import AutoModelForCausalLM

    from sharpen.models.load import resolve

    plain: Any = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=getattr(torch, dtype)).eval()

    def run(chosen: list[Tokens], stop: frozenset[int], bounds: list[int], seed: int) -> int:
        torch.manual_seed(seed)
        width, most = max(map(len, chosen)), max(bounds)
        padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in chosen])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in chosen])
        ends = {"eos_token_id": sorted(stop), "pad_token_id": 0} if stop else {"min_new_tokens": most}
        made = plain.generate(padded, attention_mask=mask, do_sample=True, top_k=0, max_new_tokens=most, **ends)
        return sum(
            next((place + 1 for place, token in enumerate(row) if token in stop), len(row))
            for row in made[:, width:].tolist()
        )

    return run


def measure(
    side: str, model: str, dtype: str, works: list[str], rows: int, queued: int, tokens: int, seed: int
) -> Measurements:
    """One round of each work with one side, in this process."""
    from bench.ours import versions
    from sharpen.data.render import Renderer
    from sharpen.models.load import load_tokenizer

    tokenizer, ends = load_tokenizer(model)
    renderer = Renderer(tokenizer, ends)
    distinct = [renderer.prompt(row["messages"]) for row in prompts(max(rows, queued))]
    lengths = limits(queued, min(LONGEST, 2 * tokens))
    nothing: frozenset[int] = frozenset()
    kinds = {
        "steady": (distinct[:rows], nothing, [tokens] * rows),
        "queue": (distinct[:queued], nothing, lengths),
        "alone": (distinct[:1], nothing, [tokens]),
        "rft": ([prompt for prompt in distinct[: rows // 8] for _ in range(8)], ends, [tokens] * rows),
    }
    run = (ours if side == "ours" else theirs)(model, dtype, rows)
    found: Measurements = {}
    for work in works:
        chosen, stop, bounds = kinds[work]
        run(chosen[:rows], nothing, [WARM] * len(chosen[:rows]), seed)
        with Gauge() as gauge, gauge.step() as made:
            made.append(run(chosen, stop, bounds, seed))
        found[work] = gauge.measurement(versions(), dtype=dtype)
    return found


def ratio(ours: Measurements, peer: Measurements) -> dict[str, Any]:
    """Rates against `generate` in its better type; the queue's share of the steady rate; ms a token alone."""
    found: dict[str, Any] = {}
    for work, one in ours.items():
        rates = {dtype: peer[f"{work}, {dtype}"]["tokens_per_second"] for dtype in PEERS if f"{work}, {dtype}" in peer}
        if rates:
            dtype = max(rates, key=lambda name: rates[name])
            found[work] = {"ratio": one["tokens_per_second"] / rates[dtype], "peer_best": dtype}
    if {"steady", "queue"} <= ours.keys():
        found["queue_over_steady"] = ours["queue"]["tokens_per_second"] / ours["steady"]["tokens_per_second"]
    if "alone" in ours:
        found["alone_ms_per_token"] = 1000 / ours["alone"]["tokens_per_second"]
    return found


def main() -> None:
    """Measure what the options ask for, and print the document."""
    parser = arguments(__doc__)
    parser.add_argument("--works", type=lambda text: text.split(","), default=list(WORKS), metavar=",".join(WORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS, help="sequences side by side, a multiple of 8")
    parser.add_argument("--queued", type=int, default=QUEUED)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a sequence; of a queued one at most twice that")
    parser.add_argument("--skip-peer", action="store_true")
    options = prepared(parser)
    record = Record(options, ratio)
    settings = picked(options, "model", "rows", "queued", "tokens")
    sides = {"ours": (options.dtype, options.works)}
    if not options.skip_peer:
        sides |= {dtype: (dtype, [work for work in options.works if work != "queue"]) for dtype in PEERS}
    rounds: dict[tuple[str, str], list[Measurement]] = {}
    for seed in range(options.rounds):
        for side, (dtype, works) in sides.items():
            if not works:
                continue
            made = apart("bench.sampler:measure", side=side, dtype=dtype, works=works, seed=seed, **settings)
            for work in works:
                several = rounds.setdefault((side, work), [])
                several.append(made.get(work, made))
                name = work if side == "ours" else f"{work}, {side}"
                record.add("ours" if side == "ours" else "peer", name, joined(several))
    record.finish()


if __name__ == "__main__":
    main()
