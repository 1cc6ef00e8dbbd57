"""`language`: how much of the completion is in a language.

The text is cut into passages, each of whole sentences and long enough to be judged; py3langid says which of 97
languages each is in. It is offline, BSD-licensed, and has no chance in it. Blocks of code are in no language, and left
out.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.config.graders import Language
from sharpen.errors import GraderError
from sharpen.graders.base import completion_fault
from sharpen.graders.length import sentences
from sharpen.types import Example, Grade, Sample

try:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]
except ImportError:  # the extra is not installed: said when the grader is built
    LanguageIdentifier = None

CODE = re.compile(r"(```|~~~).*?(?:\1|\Z)", re.DOTALL)
ENOUGH = 40
"""Letters from which on a passage says clearly what language it is in."""


class LanguageGrader:
    """The share of letters, from 0 to 1, in passages of the language."""

    def __init__(self, config: Language) -> None:
        """Raises GraderError where the detector is not installed, or does not know the language."""
        self._language = config.language
        self._detector = detector()
        if config.language not in (known := sorted(self._detector.nb_classes)):
            raise GraderError(
                "no language that the detector knows", value=config.language, remedy=f"Use one of {known}"
            )

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Judge each passage."""
        found: dict[str, int] = {}
        for passage in passages(CODE.sub("\n", sample.text)):
            language = str(self._detector.classify(passage, datatype="uint32")[0])
            found[language] = found.get(language, 0) + letters(passage)
        total = sum(found.values())
        if not total:
            return completion_fault("sample_parse_error", "the completion has no letters outside blocks of code")
        said = ", ".join(
            f"{name} {count / total:.0%}" for name, count in sorted(found.items(), key=lambda n: -n[1])[:5]
        )
        return Grade(found.get(self._language, 0) / total, explanation=f"letters by language: {said}")


def detector() -> Any:
    """py3langid's, over all its languages. Raises GraderError where it is not installed."""
    if LanguageIdentifier is None:
        raise GraderError(
            "the grader `language` needs the package py3langid, which is not installed",
            remedy="pip install 'sharpen[language]'",
        )
    return LanguageIdentifier.from_pickled_model(MODEL_FILE)


def passages(text: str) -> list[str]:
    """The sentences of a text, joined until there are letters enough; too short an end is joined to what is before."""
    found, waiting = list[str](), ""
    for sentence in (piece for line in text.splitlines() for piece in sentences(line)):
        waiting = f"{waiting} {sentence}".strip()
        if letters(waiting) >= ENOUGH:
            found.append(waiting)
            waiting = ""
    if waiting and found:
        found[-1] = f"{found[-1]} {waiting}"
    elif letters(waiting):
        found.append(waiting)
    return found


def letters(text: str) -> int:
    """How many characters of a text are letters."""
    return sum(map(str.isalpha, text))
