"""`length`: how long the completion is."""

from __future__ import annotations

import re
from collections.abc import Callable

from sharpen.config.graders import Length
from sharpen.types import Example, Grade, Sample

SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]?\s+|(?<=[。！？])")
"""Where one sentence ends and, if there is more text, the next one begins. `Dr. Who` counts as two."""


def sentences(text: str) -> list[str]:
    """The sentences of a text; what follows the last full stop is one too."""
    return [piece for piece in SENTENCE_END.split(text) if piece.strip()]


COUNTS: dict[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: sum(bool(line.strip()) for line in text.splitlines()),
    "sentences": lambda text: len(sentences(text)),
}


class LengthGrader:
    """1 within the bounds; outside, 0 or what `falloff` leaves. `metrics["length"]`: the count."""

    def __init__(self, config: Length) -> None:
        self._config = config
        self._count = COUNTS[config.unit]

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Count, and say how far the count lies outside."""
        config, count = self._config, self._count(sample.text)
        outside = max(config.min - count, 0 if config.max is None else count - config.max, 0)
        score = 1.0
        if outside:
            score = max(0.0, 1 - outside / config.falloff) if config.falloff else 0.0
        most = "" if config.max is None else f" to {config.max:,}"
        return Grade(score, {"length": float(count)}, f"{count:,} {config.unit} (wanted: {config.min:,}{most})")
