"""Tokens per second and memory of DPO, 16 pairs a step with prompts of about 180 tokens, sharpen beside TRL.

    python -m bench.dpo --out bench/dpo.json

Full fine-tuning with the sigmoid loss, on the same pairs. A step of ours has its share of what is done before the first
step: its pairs are scored by the stage's start. That is one epoch, the least favourable case. TRL asks a reference
model in each step, or (`precomputed`) its own before the first step, and then a step has its share of that too. Tokens
are those of prompt and answer in both rows of each pair, though ours computes a prompt once. The peer is chosen as in
`bench.grpo_step`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.common import TOPICS, Gauge, Measurement, Record, apart, arguments, picked, prepared
from bench.peer import against_best, options_for, sweep
from bench.sft import ANSWERS

PAIRS = 16
ASKED = (
    "Below are a few notes of mine about {topic}. Read them, and write a short reply in a friendly tone.",
    "Note {number}: I began to think about {topic} when I was a child, and I have never quite stopped since then.",
    "People say that {topic} is an odd thing to care for, but they have not looked at it in the early morning.",
    "Last week a neighbour asked me what it is good for, and I could not find an answer that would have satisfied her.",
    "I have kept a small book about it for {number} years; most of its pages are full of drawings and of weather.",
    "What I would like to know is what you see in it, and whether one can learn to see more than that with time.",
)


def pairs(count: int) -> list[dict[str, Any]]:
    """Preference rows as TRL and sharpen read them, no two equal; answers have four to eight sentences."""
    found = []
    for place in range(count):
        words = {"topic": TOPICS[place % len(TOPICS)], "number": place + 2}

        def answer(first: int, sentences: int, words: dict[str, Any] = words) -> list[dict[str, str]]:
            text = " ".join(ANSWERS[(first + turn) % len(ANSWERS)] for turn in range(sentences)).format(**words)
            return [{"role": "assistant", "content": text}]

        asked = " ".join(ASKED).format(**words)
        chosen, rejected = answer(place, 4 + place % 5), answer(place + 2, 4 + place % 3)
        found.append({"prompt": [{"role": "user", "content": asked}], "chosen": chosen, "rejected": rejected})
    return found


def ours(
    model: str,
    dtype: Any,
    adapter: str,
    tokens_per_microbatch: int | None,
    data: str,
    warmup: int,
) -> Measurement:
    """Steps of the engine on the pairs of the file `data`, in this process."""
    from bench.ours import learner, versions
    from sharpen.config.data import FileData
    from sharpen.config.preferences import Sigmoid
    from sharpen.data.source import read_pairs
    from sharpen.train.preferences import PairLoss

    losses: list[float] = []
    with Gauge(warmup) as gauge:
        held = learner(model, dtype, adapter, tokens_per_microbatch)
        rendered = [held.renderer.pair(row, 1024) for row in read_pairs(FileData(path=data), Path())]
        batches = []
        for start in range(0, len(rendered), PAIRS):
            with gauge.step() as tokens:
                rows = [row for pair in rendered[start : start + PAIRS] for row in pair]
                scored = held.engine.score(rows, whole=True)
                batches.append([replace(row, ref_logprobs=row.old_logprobs, old_logprobs=()) for row in scored])
                tokens += [len(row.tokens) for row in rows]
        scoring, gauge.seconds = gauge.seconds, []
        cores, gauge.core_seconds = gauge.core_seconds, []
        gauge.tokens.clear()
        for batch in batches:
            with gauge.step() as tokens:
                losses.append(held.engine.step(batch, PairLoss.of_step(Sigmoid(), batch)).loss)
                tokens += [len(row.tokens) for row in batch]
        gauge.seconds = [step + before for step, before in zip(gauge.seconds, scoring, strict=True)]
        gauge.core_seconds = [step + before for step, before in zip(gauge.core_seconds, cores, strict=True)]
    return gauge.measurement(versions(), loss=losses[warmup:], scoring_seconds=scoring[warmup:], **held.facts())


def main() -> None:
    """Measure what the options ask for, and print the document."""
    parser = arguments(__doc__)
    options_for(parser, (2, 4, 8))
    options = prepared(parser)
    record = Record(options, against_best)
    data = pairs(PAIRS * (options.warmup + options.steps))
    if not options.skip_ours:
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps(row) + "\n" for row in data)
            file.flush()
            settings = picked(options, "model", "dtype", "adapter", "tokens_per_microbatch", "warmup")
            record.add("ours", options.adapter, apart("bench.dpo:ours", data=file.name, **settings))
    if not options.skip_peer:
        for named, more in (("", ()), (", precomputed", ("--precompute",))):
            sweep(record, options, "trl_dpo", data, "--pairs-per-step", PAIRS, *more, named=named)
    record.finish()


if __name__ == "__main__":
    main()
