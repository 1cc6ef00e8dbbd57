"""`repetition`: how much of the completion repeats itself.

With G n-grams in all and D different ones, the share that repeats is r = 1 − D / G (arXiv:2502.03373, appendix C.2, and
TRL's `get_repetition_penalty_reward`, which gives −r). The score is 1 − max(0, r − max_share) / (1 − max_share). A text
too short for an n-gram repeats nothing.
"""

from __future__ import annotations

from sharpen.config.graders import Repetition
from sharpen.types import Example, Grade, Sample


class RepetitionGrader:
    """From 1, where nothing repeats, towards 0; `metrics["repeated"]`: the share of n-grams that repeat."""

    def __init__(self, config: Repetition) -> None:
        self._config = config

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Count the n-grams and the different ones; upper and lower case are the same."""
        config, text = self._config, sample.text.lower()
        units = text.split() if config.unit == "words" else [character for character in text if not character.isspace()]
        total = max(len(units) - config.ngram_size + 1, 0)
        different = len(set(zip(*(units[start:] for start in range(config.ngram_size)), strict=False))) if total else 0
        share = 1 - different / total if total else 0.0
        score = 1 - max(0.0, share - config.max_share) / (1 - config.max_share)
        said = f"{total - different:,} of {total:,} {config.ngram_size}-grams of {config.unit} repeat earlier ones"
        return Grade(score, {"repeated": share}, said)
