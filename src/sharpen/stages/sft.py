"""Supervised fine-tuning: imitate the assistant's turns."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.config.stages import SFT
from sharpen.stages import epochs
from sharpen.stages.work import Work
from sharpen.train.engine import Engine
from sharpen.train.losses import CrossEntropy
from sharpen.types import Labelled, Preference
from sharpen.types import Sequence as Row


async def run(stage: SFT, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    await epochs.run(stage, work, Imitation(stage, work))


class Imitation:
    """Each trained turn made likelier, given all before it."""

    def __init__(self, stage: SFT, work: Work) -> None:
        """Raises DataError for a bad validation row."""
        self._stage, self._work = stage, work
        self._rows = work.held_out.rows[stage.name]
        self._watched = [self.render(row) for row in work.held_out.labelled.get(stage.name, [])]

    def look_at(self, engine: Engine, steps: Sequence[int]) -> None:
        """Nothing has to be known beforehand."""

    def keep(self) -> None:
        """Nothing was noted."""

    def at(self, step: int) -> epochs.Learned:
        """The rows of a step."""
        return [
            self.render(self._rows[index]) for index in epochs.chosen(self._stage, self._work, step)
        ], CrossEntropy()

    def watched(self) -> epochs.Learned | None:
        """The validation rows."""
        return (self._watched, CrossEntropy()) if self._watched else None

    def render(self, row: Labelled | Preference) -> Row:
        """One row. Raises DataError."""
        assert isinstance(row, Labelled)
        return self._work.renderer.labelled(row, self._stage.max_length)
