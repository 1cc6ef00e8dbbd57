"""Seconds and memory of one GRPO step, sharpen beside TRL, on the work of `bench/README.md`.

    python -m bench.grpo_step                                  # ours, then each of TRL's settings; about 40 minutes
    python -m bench.grpo_step --out FILE --skip-peer           # or a part a call, merged into a file: ours alone,
    python -m bench.grpo_step --out FILE --skip-peer --adapter lora
    python -m bench.grpo_step --out FILE --skip-ours --per-device 8
    python -m bench.grpo_step --no-matrix-units                # both sides as on a machine without bfloat16 units

The peer runs in an environment of its own, made on first use from `requirements-trl.txt`. It is measured with float32
weights under bfloat16 autocast (without matrix units, in float32), and the best settings for time and for
memory are chosen separately; `--bf16-weights` adds its bfloat16 weights at the setting best for time.
"""

from __future__ import annotations

import statistics
from typing import Any

from bench.common import Gauge, Measurement, Record, apart, arguments, picked, prepared, prompts
from bench.peer import against_best, options_for, sweep

PROMPTS, GROUP = 8, 8


def ours(
    model: str,
    dtype: Any,
    adapter: str,
    tokens_per_microbatch: int | None,
    steps: int,
    warmup: int,
    max_tokens: int,
) -> Measurement:
    """Our steps, in this process: sample, grade, compare, learn."""
    from bench.ours import learn, learner, sample, versions
    from sharpen.rollout.local import LocalSampler

    sampling: list[float] = []
    spread: list[int] = []
    with Gauge(warmup) as gauge:
        held = learner(model, dtype, adapter, tokens_per_microbatch)
        sampler = LocalSampler(held.loaded.model, held.loaded.stop)
        rows = held.prompts((warmup + steps) * PROMPTS)
        for number in range(warmup + steps):
            chosen = rows[number * PROMPTS : (number + 1) * PROMPTS]
            with gauge.step() as tokens:
                segments = sample(sampler, chosen, GROUP, (0, number), max_tokens)
                sampling.append(gauge.lap())
                spread.append(learn(held, chosen, segments)[1])
                tokens += [segment.sampled for segment in segments]
    return gauge.measurement(
        versions(),
        sampling_seconds=sampling[warmup:],
        sampling_median=statistics.median(sampling[warmup:]),
        groups_with_spread=spread[warmup:],
        **held.facts(),
    )


def main() -> None:
    """Measure what the options ask for, and print the document."""
    parser = arguments(__doc__)
    options_for(parser, (4, 8, 16, 64))
    parser.add_argument("--max-tokens", type=int, default=128, help="of a completion")
    options = prepared(parser)
    record = Record(options, against_best)
    if not options.skip_ours:
        settings = picked(
            options, "model", "dtype", "adapter", "tokens_per_microbatch", "steps", "warmup", "max_tokens"
        )
        record.add("ours", options.adapter, apart("bench.grpo_step:ours", **settings))
    if not options.skip_peer:
        rows = prompts((options.warmup + options.steps) * PROMPTS)
        sweep(record, options, "trl_grpo", rows, "--max-new-tokens", options.max_tokens)
    record.finish()


if __name__ == "__main__":
    main()
