"""The loop of the stages that learn from rows in shuffled epochs: all but RFT."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.config.stages import DPO, SFT, RewardModeling
from sharpen.data.corpus import Corpus
from sharpen.errors import DataError
from sharpen.stages.work import Work
from sharpen.train.engine import Engine
from sharpen.train.losses import Loss
from sharpen.types import Labelled, Preference
from sharpen.types import Sequence as Row

CHECKED = 10_000
"""So many rows are rendered before the first step to find their faults; later ones when their turn comes."""

Taught = SFT | DPO | RewardModeling
"""The stages of this kind."""

Learned = tuple[list[Row], Loss]
"""The trainer's rows, and the loss on them."""


class Lesson:
    """What a stage learns from its rows."""

    def __init__(self, stage: Taught, work: Work) -> None:
        self._work = work
        self._name = stage.name
        self._rows = work.held_out.rows[stage.name]

    def render(self, row: Labelled | Preference) -> Sequence[Row]:
        """What the trainer has of a row. Raises DataError for a bad one."""
        raise NotImplementedError

    def at(self, step: int) -> Learned:
        """What is learned in step `step` (from 0). Raises DataError for a bad row."""
        raise NotImplementedError

    def watched(self) -> Learned | None:
        """The validation rows, where there are some."""
        raise NotImplementedError

    def look_at(self, engine: Engine, steps: Sequence[int]) -> None:
        """Note of these steps what the weights say that the stage starts from, which `engine` still has: nothing, where
        nothing has to be known beforehand."""

    def keep(self) -> None:
        """Write down what was noted, for when the stage is resumed."""

    def held_out(self) -> list[Row]:
        """The trainer's rows of all validation rows. Raises DataError."""
        return [made for row in self._work.held_out.labelled.get(self._name, []) for made in self.render(row)]

    def rendered(self, chosen: Sequence[int]) -> list[Row]:
        """The trainer's rows of these rows. Raises DataError."""
        return [made for index in chosen for made in self.render(self._rows[index])]


async def run(stage: Taught, work: Work, lesson: Lesson) -> None:
    """Train on the stage's rows; publishes the model."""
    rows_there = work.held_out.rows[stage.name]
    check(stage, rows_there, lesson.render)
    steps = steps_of(stage, work)
    engine = work.engine(steps)
    lesson.look_at(engine, range(steps))
    lesson.keep()
    done, _ = work.restore(engine)
    for step in range(done, steps):
        if work.stopped_early:
            break
        began = time.monotonic()
        try:
            rows, loss = lesson.at(step)
        except DataError as error:  # a row beyond those that `check` rendered: keep what was learned so far
            work.pause(step, engine, error.describe(), {})
            raise
        result = engine.step(rows, loss)
        seconds = time.monotonic() - began
        line: dict[str, Any] = {
            **result.line(),
            "time": {"step": seconds, "train": seconds},
            "tokens": {"sampled": 0, "trained": learned_from(stage, rows)},
        }
        if counts := work.held_out.mixes[stage.name].counts(*span(stage, work, step)):
            line["rows"] = counts
        due = (step + 1) % stage.eval_every == 0 or step + 1 == steps
        if due and (watched := lesson.watched()):
            line["validation"] = {**engine.evaluate(*watched), "n": len(work.held_out.labelled[stage.name])}
        work.finish_step(step + 1, steps, engine, line, {})
    work.finish(engine)


def learned_from(stage: Taught, rows: Sequence[Row]) -> int:
    """The tokens that the loss covers; of texts that are scored, all that are read."""
    return sum(row.trained if stage.makes_policy else len(row.tokens) - 1 for row in rows)


def seen(stage: Taught, work: Work) -> int:
    """How many rows all epochs have together. Raises DataError when there are none."""
    mix = work.held_out.mixes[stage.name]
    if not mix.own_rows:
        raise DataError("there are no rows to train on", field=f"stages.{stage.name}.data")
    return mix.length(stage.epochs)


def steps_of(stage: Taught, work: Work) -> int:
    """The optimiser steps of the stage."""
    return math.ceil(seen(stage, work) / stage.batch_size)


def span(stage: Taught, work: Work, step: int) -> tuple[int, int]:
    """Where step `step` (from 0) begins and ends among all rows of all epochs; the last step may be shorter."""
    first = step * stage.batch_size
    return first, min(first + stage.batch_size, seen(stage, work))


def chosen(stage: Taught, work: Work, step: int) -> list[int]:
    """Which rows are those of step `step` (from 0)."""
    return work.held_out.mixes[stage.name].rows(*span(stage, work, step), (work.seed, stage.name, "order"))


def check(stage: Taught, rows: Corpus, render: Callable[[Labelled | Preference], object]) -> None:
    """Render, before the first step, every row of a small source; of a large one all that may be too long.

    A token stands for at least a byte, so a row of at most `max_length` bytes is not too long but for what the
    template adds.
    """
    for index in range(len(rows)):
        if index < CHECKED or rows.size(index) > stage.max_length:
            render(rows[index])
