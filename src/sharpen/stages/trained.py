"""A stage that is done, as the rules on its symptoms see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.config.recipe import Recipe
from sharpen.config.stages import AnyStage
from sharpen.runs.statistics import Difference, interval, unpaired_difference
from sharpen.runs.store import read_lines

Lines = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Trained:
    """A stage that is done: what it was told, what its steps noted, and the run it is part of."""

    run: Path
    recipe: Recipe
    stage: AnyStage
    lines: Lines
    summary: Mapping[str, Any]

    @property
    def late(self) -> Lines:
        """The last steps."""
        return self.lines[-max(4, len(self.lines) // 10) :]

    @property
    def name(self) -> str:
        """As the verdict writes it."""
        return self.stage.name.upper()

    def rollouts(self, step: float) -> Lines:
        """The completions of a step."""
        return read_lines(self.run / "rollouts" / self.stage.name / f"step-{int(step):05d}.jsonl")

    def recent(self, *keys: str) -> list[float]:
        """The numbers under the keys in the last steps, where they have one."""
        return numbers(self.late, *keys)


def numbers(lines: Lines, *keys: str) -> list[float]:
    """The numbers under the keys, of the lines that have one."""
    found = []
    for line in lines:
        value: Any = line
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found.append(float(value))
    return found


def gain_of(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    """From some steps to others, with its interval over steps; None where there are fewer than four of either."""
    if len(before) < 4 or len(after) < 4:
        return None
    return unpaired_difference(float(np.mean(before)), interval(before), float(np.mean(after)), interval(after))
