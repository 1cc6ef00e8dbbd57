"""What RFT costs per prompt, beside what SFT costs per example of the same length.

    python -m bench.cost_ratio

Lengths are fixed: prompts of 45 tokens, answers of 64 (end tokens ignored). A step of RFT samples 8 completions of each
of 8 prompts, grades and learns; a step of SFT learns 16 of those completions. Core-seconds are the processor time of
the whole process. There is no peer here; TensorZero reports 100 to 700 times.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.common import Gauge, Measurement, Measurements, Record, apart, arguments, picked, prepared

PROMPTS, GROUP, EXAMPLES = 8, 8, 16


def rft(model: str, dtype: Any, steps: int, warmup: int, prompt_tokens: int, answer_tokens: int) -> Measurement:
    """Steps of RFT; a unit is a prompt."""
    from bench.ours import learn, learner, sample, versions
    from sharpen.rollout.local import LocalSampler

    with Gauge(warmup) as gauge:
        held = learner(model, dtype)
        sampler = LocalSampler(held.loaded.model, frozenset())
        rows = [prompt[-prompt_tokens:] for prompt in held.prompts(PROMPTS * (warmup + steps))]
        for number in range(warmup + steps):
            chosen = rows[number * PROMPTS : (number + 1) * PROMPTS]
            with gauge.step() as tokens:
                segments = sample(sampler, chosen, GROUP, (0, number), answer_tokens)
                learn(held, chosen, segments)
                tokens += [len(segment.tokens) for segment in segments]
    return gauge.measurement(versions(), unit="prompt", units_per_step=PROMPTS, **held.facts())


def sft(model: str, dtype: Any, steps: int, warmup: int, prompt_tokens: int, answer_tokens: int) -> Measurement:
    """Steps of SFT on completions of the model's own; a unit is an example."""
    from bench.ours import learner, sample, versions
    from sharpen.rollout.local import LocalSampler
    from sharpen.train.losses import CrossEntropy
    from sharpen.types import Sequence as Row

    held = learner(model, dtype)
    sampler = LocalSampler(held.loaded.model, frozenset())
    prompts = [prompt[-prompt_tokens:] for prompt in held.prompts(EXAMPLES * (warmup + steps))]
    segments = sample(sampler, prompts, 1, (0,), answer_tokens)
    rows = [Row(segment.tokens, segment.mask, atom=str(place)) for place, segment in enumerate(segments)]
    with Gauge(warmup) as gauge:
        for start in range(0, len(rows), EXAMPLES):
            with gauge.step() as tokens:
                chosen = rows[start : start + EXAMPLES]
                held.engine.step(chosen, CrossEntropy())
                tokens += [len(row.tokens) for row in chosen]
    return gauge.measurement(versions(), unit="example", units_per_step=EXAMPLES, **held.facts())


def per_unit(measurement: Measurement, name: str) -> float:
    """The median step's `seconds` or `core_seconds`, for one prompt or example."""
    return float(statistics.median(measurement[name]) / measurement["units_per_step"])


def ratio(ours: Measurements, _: Measurements) -> dict[str, Any]:
    """RFT per prompt ÷ SFT per example."""
    if not {"rft", "sft"} <= ours.keys():
        return {}
    return {name: per_unit(ours["rft"], name) / per_unit(ours["sft"], name) for name in ("seconds", "core_seconds")}


def main() -> None:
    """Measure both, and print the document."""
    parser = arguments(__doc__)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=45)
    parser.add_argument("--answer-tokens", type=int, default=64)
    options = prepared(parser)
    record = Record(options, ratio)
    settings = picked(options, "model", "dtype", "steps", "warmup", "prompt_tokens", "answer_tokens")
    for kind in ("rft", "sft"):
        record.add("ours", kind, apart(f"bench.cost_ratio:{kind}", **settings))
    record.finish()


if __name__ == "__main__":
    main()
