"""`numeric`: a number within a tolerance of the reference. Arithmetic is exact, so a tolerance of 0.1 means 0.1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from sharpen.config.graders import Numeric
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample

NUMBER = re.compile(
    r"""(?P<sign>(?<![\w).])[-+−])?           # after a number it is an operator: 48-24
    (?<![\w.])                                 # no digit of a word or of a version
    (?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+)?
    (?P<part>\.\d+)?(?<=\d)
    (?:/(?P<under>\d+)(?!\.?\d)|(?:[eE](?P<exponent>[-+]?\d+))?(?P<percent>\s?%)?)""",
    re.VERBOSE | re.ASCII,
)
LONGEST = 400
"""Digits, and the largest exponent, of what counts as a number: more is noise, and slow to compute with."""


class NumericGrader:
    """1 or 0; `metrics["format"]`: there is a number; `found`: some number in the completion is right."""

    def __init__(self, config: Numeric) -> None:
        self._config = config
        # As they are written: the float nearest to 0.3 is less than 0.3.
        self._abs, self._rel = (Fraction(str(value)) for value in (config.abs_tolerance, config.rel_tolerance))

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Compare the completion's number with the reference's."""
        try:
            reference = render(self._config.reference, example, sample)
        except InvalidVariable as error:
            return error.grade()
        references = [value for _, value in numbers(reference)]
        if not references:
            return grader_fault("invalid_variable_error", f"the reference is no number: {reference!r:.200}")
        expected, text = references[-1], sample.text.strip()
        candidates = list(numbers(text))
        found = float(any(self._near(value, expected) for _, value in candidates))
        if self._config.take == "only":
            candidates = [(written, value) for written, value in candidates if written == text]
        if not candidates:
            wanted = "is not a number and nothing else" if self._config.take == "only" else "has no number"
            detail = f"the completion {wanted}"
            return completion_fault("sample_parse_error", detail, {"format": 0.0, "found": found})
        written, given = candidates[-1]
        right = self._near(given, expected)
        detail = f"{written:.100} is {'' if right else 'not '}within tolerance of {reference.strip():.100}"
        return Grade(float(right), {"format": 1.0, "found": found}, detail)

    def _near(self, given: Fraction, expected: Fraction) -> bool:
        return abs(given - expected) <= max(self._abs, self._rel * abs(expected))


def numbers(text: str) -> Iterator[tuple[str, Fraction]]:
    """The numbers in a text, as written and as what they are worth."""
    for match in NUMBER.finditer(text):
        value = _value(match)
        if value is not None:
            yield match[0], value


def _value(match: re.Match[str]) -> Fraction | None:
    exponent = int(match["exponent"] or 0) if len(match["exponent"] or "") < 6 else LONGEST + 1
    if len(match[0]) > LONGEST or abs(exponent) > LONGEST or (match["under"] and int(match["under"]) == 0):
        return None
    size = Fraction((match["whole"] or "0").replace(",", "") + (match["part"] or ""))
    size = size * Fraction(10) ** exponent / int(match["under"] or 1) / (100 if match["percent"] else 1)
    return size if match["sign"] in (None, "+") else -size
