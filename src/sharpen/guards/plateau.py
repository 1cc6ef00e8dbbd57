"""When a stage has stopped to improve on its validation rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass
class Plateau:
    """Counts the looks running that brought no score above the best by more than `min_delta`."""

    patience: int
    min_delta: float
    best: float | None = None
    looks: int = 0

    def look(self, score: float) -> None:
        """Take a score (higher is better); one that is not finite is no improvement."""
        if math.isfinite(score) and (self.best is None or score > self.best + self.min_delta):
            self.best, self.looks = score, 0
        else:
            self.looks += 1

    @property
    def reached(self) -> bool:
        """Whether `patience` looks running have brought nothing."""
        return self.looks >= self.patience

    def state(self) -> dict[str, Any]:
        """For JSON."""
        return {"best": self.best, "looks": self.looks}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.best, self.looks = state["best"], state["looks"]
