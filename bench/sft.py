"""Tokens per second and memory of SFT, 16 rows of about 110 tokens a step, sharpen beside TRL.

    python -m bench.sft                                        # ours, then each of TRL's settings
    python -m bench.sft --out FILE --skip-peer --adapter lora  # or a part a call, merged into a file

Both sides train on the same tokens, rendered before the clock starts; the loss is on the answers. Tokens are those of
whole rows. The peer is chosen as in `bench.grpo_step`.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from bench.common import TOPICS, Gauge, Measurement, Record, apart, arguments, picked, prepared, prompts
from bench.peer import against_best, options_for, sweep

ROWS = 16
ANSWERS = (
    "What I like most about {topic} is how it changes through the day.",
    "My grandmother used to say that {topic} teaches patience, and I think she was right.",
    "You notice something new every time you look closely, even after {number} years.",
    "There is a quiet pleasure in it that costs nothing at all and asks for nothing back.",
    "I hope that you get to see it for yourself one morning, before everybody is awake.",
)

Tokenised = list[dict[str, list[int]]]


def rows(model: str, count: int) -> Tokenised:
    """Rows of about 110 tokens as TRL takes them: `input_ids`, and `labels` that are −100 before the answer."""
    from sharpen.data.render import Renderer
    from sharpen.models.load import load_tokenizer
    from sharpen.types import Labelled

    renderer = Renderer(*load_tokenizer(model))
    found = []
    for place, asked in enumerate(prompts(count)):
        sentences = [ANSWERS[(place + turn) % len(ANSWERS)] for turn in range(3 + place % 3)]
        text = " ".join(sentences).format(topic=TOPICS[place % len(TOPICS)], number=place + 2)
        messages = (*asked["messages"], {"role": "assistant", "content": text})
        row = renderer.labelled(Labelled(str(place), messages, trained=(1,)), 1024)
        labels = [token if trained else -100 for token, trained in zip(row.tokens, row.mask, strict=True)]
        found.append({"input_ids": list(row.tokens), "labels": labels})
    return found


def ours(
    model: str,
    dtype: Any,
    adapter: str,
    tokens_per_microbatch: int | None,
    data: str,
    rows_per_step: int,
    warmup: int,
) -> Measurement:
    """Steps of the engine on the rows of the file `data`, in this process."""
    from bench.ours import learner, versions
    from sharpen.train.losses import CrossEntropy
    from sharpen.types import Sequence as Row

    read = [json.loads(line) for line in Path(data).read_text().splitlines()]
    batch = [
        Row(tuple(row["input_ids"]), tuple(label != -100 for label in row["labels"]), atom=str(place))
        for place, row in enumerate(read)
    ]
    losses: list[float] = []
    with Gauge(warmup) as gauge:
        held = learner(model, dtype, adapter, tokens_per_microbatch)
        for start in range(0, len(batch), rows_per_step):
            with gauge.step() as tokens:
                chosen = batch[start : start + rows_per_step]
                losses.append(held.engine.step(chosen, CrossEntropy()).loss)
                tokens += [len(row.tokens) for row in chosen]
    return gauge.measurement(versions(), loss=losses[warmup:], **held.facts())


def compare(record: Record, options: Any, data: Tokenised, rows_per_step: int, *more: object) -> None:
    """Measure the sides that the options ask for, on the same rows."""
    if not options.skip_ours:
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.writelines(json.dumps(row) + "\n" for row in data)
            file.flush()
            settings = picked(options, "model", "dtype", "adapter", "tokens_per_microbatch", "warmup")
            measured = apart("bench.sft:ours", data=file.name, rows_per_step=rows_per_step, **settings)
            record.add("ours", options.adapter, measured)
    if not options.skip_peer:
        sweep(record, options, "trl_sft", data, "--rows-per-step", rows_per_step, *more)


def main() -> None:
    """Measure what the options ask for, and print the document."""
    parser = arguments(__doc__)
    options_for(parser, (2, 4, 8, 16))
    options = prepared(parser)
    record = Record(options, against_best)
    compare(record, options, rows(options.model, ROWS * (options.warmup + options.steps)), ROWS)
    record.finish()


if __name__ == "__main__":
    main()
