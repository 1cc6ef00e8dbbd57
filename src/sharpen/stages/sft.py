"""Supervised fine-tuning: imitate the assistant's turns."""

from __future__ import annotations

from sharpen.config.stages import SFT
from sharpen.stages import epochs
from sharpen.stages.work import Work
from sharpen.train.losses import CrossEntropy
from sharpen.types import Labelled, Preference
from sharpen.types import Sequence as Row


async def run(stage: SFT, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    await epochs.run(stage, work, Imitation(stage, work))


class Imitation(epochs.Lesson):
    """Each trained turn made likelier, given all before it."""

    def __init__(self, stage: SFT, work: Work) -> None:
        """Raises DataError for a bad validation row."""
        super().__init__(stage, work)
        self._stage = stage
        self._watched = self.held_out()

    def at(self, step: int) -> epochs.Learned:
        """The rows of a step."""
        return self.rendered(epochs.chosen(self._stage, self._work, step)), CrossEntropy()

    def watched(self) -> epochs.Learned | None:
        """The validation rows."""
        return (self._watched, CrossEntropy()) if self._watched else None

    def render(self, row: Labelled | Preference) -> tuple[Row]:
        """One row. Raises DataError."""
        assert isinstance(row, Labelled)
        return (self._work.renderer.labelled(row, self._stage.max_length),)
