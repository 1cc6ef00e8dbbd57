"""Supervised fine-tuning: imitate the assistant's turns."""

from __future__ import annotations

import math
import time
from typing import Any

from sharpen.config.stages import SFT
from sharpen.data.corpus import Corpus
from sharpen.data.order import indices
from sharpen.errors import DataError
from sharpen.stages.work import Work
from sharpen.train.losses import CrossEntropy
from sharpen.types import Labelled
from sharpen.types import Sequence as Row

CHECKED = 10_000
"""So many rows are rendered before the first step to find their faults; later ones when their turn comes."""


async def run(stage: SFT, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    rows = work.held_out.rows[stage.name]
    _check(stage, work, rows)
    held_out = [_render(stage, work, row) for row in work.held_out.labelled.get(stage.name, [])]
    steps = math.ceil(seen(stage, len(rows)) / stage.batch_size)
    engine = work.engine(steps)
    done, _ = work.restore(engine)
    loss = CrossEntropy()
    for step in range(done, steps):
        if work.stopped_early:
            break
        began = time.monotonic()
        try:
            batch = rows_of_step(stage, work, rows, step)
        except DataError as error:  # a row beyond those that _check rendered: keep what was learned so far
            work.pause(step, engine, error.describe(), {})
            raise
        result = engine.step(batch, loss)
        seconds = time.monotonic() - began
        line: dict[str, Any] = {
            **result.line(),
            "time": {"step": seconds, "train": seconds},
            "tokens": {"sampled": 0, "trained": sum(row.trained for row in batch)},
        }
        if held_out and ((step + 1) % stage.eval_every == 0 or step + 1 == steps):
            line["validation"] = engine.evaluate(held_out, loss)
        work.finish_step(step + 1, steps, engine, line, {})
    work.finish(engine)


def seen(stage: SFT, rows: int) -> int:
    """How many rows all epochs over so many have together. Raises DataError when there are none."""
    if not rows:
        raise DataError("there are no rows to train on", field=f"stages.{stage.name}.data")
    return max(1, round(stage.epochs * rows))


def rows_of_step(stage: SFT, work: Work, rows: Corpus, step: int) -> list[Row]:
    """The trainer's rows of step `step` (from 0); the last step may have fewer. Raises DataError for a bad one."""
    first = step * stage.batch_size
    last = min(first + stage.batch_size, seen(stage, len(rows)))
    return [
        _render(stage, work, rows[index]) for index in indices(len(rows), first, last, (work.seed, stage.name, "order"))
    ]


def _render(stage: SFT, work: Work, row: Labelled) -> Row:
    return work.renderer.labelled(row, stage.max_length)


def _check(stage: SFT, work: Work, rows: Corpus) -> None:
    """Render, before the first step, every row of a small source; of a large one all that may be too long.

    A token stands for at least a byte, so a row of at most `max_length` bytes is not too long but for what the
    template adds.
    """
    for index in range(len(rows)):
        if index < CHECKED or rows.size(index) > stage.max_length:
            _render(stage, work, rows[index])
