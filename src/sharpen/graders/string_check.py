"""`string_check`: compare two texts."""

from __future__ import annotations

from collections.abc import Callable

from sharpen.config.graders import StringCheck
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample

OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


class StringCheckGrader:
    """1 when the comparison holds, else 0."""

    def __init__(self, config: StringCheck) -> None:
        self._config = config
        self._holds = OPERATIONS[config.operation]

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Compare the rendered input with the rendered reference."""
        try:
            text = render(self._config.input, example, sample)
            reference = render(self._config.reference, example, sample)
        except InvalidVariable as error:
            return error.grade()
        holds = self._holds(text, reference)
        verdict = "holds" if holds else "does not hold"
        return Grade(float(holds), explanation=f"{text!r:.200} {self._config.operation} {reference!r:.200} {verdict}")
