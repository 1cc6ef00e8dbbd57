"""Preference optimisation: make the better of two answers likelier than the worse.

What the stage's start says of the answers is computed before the first step, so that no second model is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from sharpen.config.preferences import KTO
from sharpen.config.stages import DPO
from sharpen.errors import DataError
from sharpen.stages import epochs
from sharpen.stages.start_scores import Named, StartScores
from sharpen.stages.work import Work
from sharpen.train.engine import Engine
from sharpen.train.preferences import KTOLoss, PairLoss, z0_of
from sharpen.types import Labelled, Preference
from sharpen.types import Sequence as Row

WATCHED = "validation"
"""The name of the validation rows among the start's scores."""


async def run(stage: DPO, work: Work) -> None:
    """Train on the stage's rows; publishes the model."""
    await epochs.run(stage, work, lesson(stage, work))


def lesson(stage: DPO, work: Work) -> epochs.Lesson:
    """What the stage learns. Raises DataError for a bad validation row."""
    return Answers(stage, work, stage.loss) if isinstance(stage.loss, KTO) else Pairs(stage, work)


class Pairs(epochs.Lesson):
    """Two answers to each prompt, of which the first is to become likelier than the second."""

    def __init__(self, stage: DPO, work: Work) -> None:
        """Raises DataError for a bad validation row."""
        super().__init__(stage, work)
        self._stage = stage
        self._start = StartScores(work, whole=True)
        self._watched = self.held_out()

    def look_at(self, engine: Engine, steps: Sequence[int]) -> None:
        """Score the validation pairs and those of the steps, each pair once."""
        if self._stage.loss.needs_reference:
            watched = (WATCHED, self._watched)
            unknown = (self._named(step) for step in steps if not self._start.has(self._names(step)))
            self._start.score(engine, chain([[watched]], unknown), len(steps) + 1)
            self._watched = self._start.given(watched)

    def keep(self) -> None:
        """Write the scores down."""
        if self._stage.loss.needs_reference:
            self._start.keep()

    def at(self, step: int) -> epochs.Learned:
        """The pairs of a step, better and worse in turn."""
        rows: list[Row] = []
        for named in self._named(step):
            rows += self._start.given(named) if self._stage.loss.needs_reference else named[1]
        return rows, PairLoss.of_step(self._stage.loss, rows)

    def watched(self) -> epochs.Learned | None:
        """The validation pairs."""
        return (self._watched, PairLoss.of_step(self._stage.loss, self._watched)) if self._watched else None

    def _names(self, step: int) -> list[str]:
        return [str(index) for index in epochs.chosen(self._stage, self._work, step)]

    def _named(self, step: int) -> list[Named]:
        return [(name, self.rendered([int(name)])) for name in self._names(step)]

    def render(self, row: Labelled | Preference) -> tuple[Row, Row]:
        """The better answer and the worse. Raises DataError."""
        assert isinstance(row, Preference)
        return self._work.renderer.pair(row, self._stage.max_length)


class Answers(epochs.Lesson):
    """Single answers, desirable or not, for KTO."""

    def __init__(self, stage: DPO, work: Work, loss: KTO) -> None:
        """Raises DataError for a bad row, and where there is but one."""
        super().__init__(stage, work)
        self._stage, self._loss = stage, loss
        self._start = StartScores(work, whole=False)
        self._watched = self.held_out()
        for field, count in (("data", len(self._rows)), ("validation", len(self._watched))):
            if count == 1:
                fact = "kto compares answers with those to other prompts, and there is one row"
                raise DataError(fact, field=f"stages.{stage.name}.{field}", remedy="Give two rows at least")

    def look_at(self, engine: Engine, steps: Sequence[int]) -> None:
        """Score the validation rows and those of the steps, each row once, and each step's mismatched ones."""
        self._engine = engine
        unknown = (self._named(step) for step in steps if not self._start.has(self._names(step)))
        parts = chain.from_iterable((named, [others]) for named, others in unknown)
        watched: list[list[Named]] = [[(WATCHED, self._watched)], [self._mismatched_watched()]]
        self._start.score(engine, chain(watched, parts), 2 * len(steps) + 2)

    def keep(self) -> None:
        """Write the scores down."""
        self._start.keep()

    def at(self, step: int) -> epochs.Learned:
        """The answers of a step."""
        named, others = self._named(step)
        return [row for own in named for row in self._start.given(own)], self._loss_with(others)

    def watched(self) -> epochs.Learned | None:
        """The validation rows."""
        if not self._watched:
            return None
        return self._start.given((WATCHED, self._watched)), self._loss_with(self._mismatched_watched())

    def _loss_with(self, others: Named) -> KTOLoss:
        return KTOLoss(self._loss, z0_of(self._engine.score(self._start.given(others))))

    def _mismatched_watched(self) -> Named:
        return f"{WATCHED} mismatched", mismatched(self._watched)

    def _names(self, step: int) -> list[str]:
        """Those of the rows of a step, and last that of the mismatched ones."""
        chosen = epochs.chosen(self._stage, self._work, step)
        return [*map(str, chosen), f"mismatched {step}: {len(chosen)}"]

    def _named(self, step: int) -> tuple[list[Named], Named]:
        """The rows of a step, each by itself, and the mismatched ones."""
        *names, last = self._names(step)
        chosen = [int(name) for name in names]
        rows = self.rendered(chosen)
        beside = rows if len(rows) > 1 else [*rows, *self.rendered([(chosen[0] + 1) % len(self._rows)])]
        named: list[Named] = [(name, [row]) for name, row in zip(names, rows, strict=True)]
        return named, (last, mismatched(beside)[: len(rows)])

    def render(self, row: Labelled | Preference) -> tuple[Row]:
        """An answer, with advantages that say whether it is desirable. Raises DataError."""
        assert isinstance(row, Labelled)
        made = self._work.renderer.labelled(row, self._stage.max_length)
        sign = 1.0 if row.desirable else -1.0
        return (replace(made, advantages=tuple(sign if m else 0.0 for m in made.mask)),)


def mismatched(rows: list[Row]) -> list[Row]:
    """Each row's prompt with the answer of the row before it, the first one's with that of the last."""
    found = []
    for row, other in zip(rows, rows[-1:] + rows[:-1], strict=True):
        first, begin = row.mask.index(True), other.mask.index(True)
        tokens, mask = row.tokens[:first] + other.tokens[begin:], row.mask[:first] + other.mask[begin:]
        found.append(Row(tokens, mask, f"{row.atom} mismatched"))
    return found
