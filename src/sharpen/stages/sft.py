"""Supervised fine-tuning: imitate the assistant's turns."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

from sharpen.config.stages import SFT
from sharpen.data.order import indices
from sharpen.data.source import read_labelled
from sharpen.errors import DataError
from sharpen.stages.work import Work
from sharpen.train.losses import CrossEntropy
from sharpen.types import Labelled
from sharpen.types import Sequence as Row


async def run(stage: SFT, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    rows = _rows(stage, work, read_labelled(stage.data, work.base))
    held_out = _rows(stage, work, work.held_out.labelled[stage.name]) if stage.validation else []
    seen = max(1, round(stage.epochs * len(rows)))
    steps = math.ceil(seen / stage.batch_size)
    engine = work.engine(steps)
    done, _ = work.restore(engine)
    loss = CrossEntropy()
    for step in range(done, steps):
        if work.stopped_early:
            break
        began = time.monotonic()
        first = step * stage.batch_size
        chosen = indices(len(rows), first, min(first + stage.batch_size, seen), (work.seed, stage.name, "order"))
        batch = [rows[index] for index in chosen]
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


def _rows(stage: SFT, work: Work, labelled: Iterable[Labelled]) -> list[Row]:
    rows = [work.renderer.labelled(row, stage.max_length) for row in labelled]
    if not rows:
        raise DataError("there are no rows to train on", field=f"stages.{stage.name}.data")
    return rows
