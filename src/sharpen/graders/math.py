r"""`math`: equality of the final answers, by math-verify (sympy underneath).

The answer is the content of the last `\boxed{...}`; without one, the whole text where that is a
bare formula; else the last number or `$formula$` in it. What math-verify does with phrases such as
"the answer is" is switched off: they would let an earlier number win over the last.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from math_verify import (  # type: ignore[import-untyped]
    ExprExtractionConfig,
    LatexExtractionConfig,
    parse,
    verify,
)

from sharpen.config.graders import MathAnswer
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample

BOXED = r"\boxed{"
LATEX = [LatexExtractionConfig()]
ANY = [LatexExtractionConfig(), ExprExtractionConfig()]
BARE_FORMULA = re.compile(r"(?:\\[a-zA-Z]+|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])|[\d\s.,+\-*/^_(){}\[\]=<>|!])+")
"""LaTeX commands, single letters, digits and signs: no words."""
NEEDS_LATEX = re.compile(r"\\[a-zA-Z]|\^\{|[a-zA-Z]|^[(\[{]|,\s")
"""What math-verify's reader of plain numbers would misread: `2\\sqrt{3}` as 2, `(3, 4)` as 4."""
EQUALS = re.compile(r"(?<![<>!])=")
BOLD = re.compile(r"(?<![\w)])\*\*(?=\S)(.+?)\*\*(?![\w(])")
DELIMITER = re.compile(r"\$|\\\(|\\\[")
GLUED = re.compile(r"\d\s*\\(?!text|mathrm|quad|[()\[\]])[a-zA-Z]|\^\{|\d[a-zA-Z]\s*[-+*/^]")
"""A number that is only the beginning of a formula outside delimiters."""

# Its only warning is that its alarm is off: here the worker's time limit stands in for that.
logging.getLogger("math_verify").setLevel(logging.ERROR)


class MathGrader:
    """1 when the last number or formula equals the reference, else 0."""

    def __init__(self, config: MathAnswer) -> None:
        self._config = config

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Compare the final answers; `metrics["format"]` says whether the sample has one."""
        try:
            reference = render(self._config.reference, example, sample)
        except InvalidVariable as error:
            return error.grade()
        expected = final_answer(reference)
        if not expected:
            return grader_fault("invalid_variable_error", f"the reference is no number or formula: {reference!r:.200}")
        given = final_answer(sample.text)
        if not given:
            return completion_fault("sample_parse_error", "no number or formula at the end", {"format": 0.0})
        equal = verify(expected, given, timeout_seconds=None)
        verdict = "equals" if equal else "is not"
        return Grade(float(equal), {"format": 1.0}, f"{given[0]!s:.200} {verdict} {expected[0]!s:.200}")


def final_answer(text: str) -> list[Any]:
    """The last formula of a text as sympy's object, alone in a list; empty when there is none."""
    if BOXED in text:
        content = _braced(text[text.rindex(BOXED) + len(BOXED) :])
        return _parse(f"{BOXED}{content}}}", LATEX) if content.strip() else []
    text = BOLD.sub(r"\1", text.strip())
    if DELIMITER.search(text):
        return _parse(_plain(text), ANY)
    if BARE_FORMULA.fullmatch(text) and "\n" not in text and NEEDS_LATEX.search(text):
        return _parse(f"{BOXED}{EQUALS.split(text)[-1]}}}", LATEX)
    return [] if GLUED.search(text) else _parse(_plain(text), ANY)


def _braced(text: str) -> str:
    """The text up to the brace that closes it; empty when none does."""
    depth = 1
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return text[:position]
    return ""


def _plain(text: str) -> str:
    """The text without math-verify's anchor word, and with room after a colon."""
    return re.sub(r":(?=[-\d.$])", ": ", re.sub(r"(?i)answer", "result", text))


def _parse(text: str, targets: list[Any]) -> list[Any]:
    found: list[Any] = parse(
        text, targets, fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None
    )
    return found
