"""The policy as it was when a stage began, without a second model: its trained weights are put in when it scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sharpen.train.engine import Engine
from sharpen.types import Sequence as Row


class Reference:
    """Scores with the weights that the engine's model has now, whatever is trained later.

    Kept is a copy of what is trained and nothing else: the adapter, or all weights in full fine-tuning.
    """

    def __init__(self, engine: Engine) -> None:
        """To be made before a checkpoint is restored: a stage's reference is its start."""
        self._engine = engine
        self._weights = [parameter.detach().clone() for parameter in engine.parameters]

    def score(self, rows: Sequence[Row], temperature: float = 1.0) -> list[Row]:
        """The rows, with `old_logprobs` filled in by the reference."""
        with self._in_force():
            return self._engine.score(rows, temperature)

    @contextmanager
    def _in_force(self) -> Iterator[None]:
        present = [parameter.data for parameter in self._engine.parameters]
        try:
            for parameter, weight in zip(self._engine.parameters, self._weights, strict=True):
                parameter.data = weight
            yield
        finally:
            for parameter, weight in zip(self._engine.parameters, present, strict=True):
                parameter.data = weight
