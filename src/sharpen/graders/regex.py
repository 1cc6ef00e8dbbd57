"""`regex`: the completion matches a pattern, and a group of the match is the reference where one is named.

A pattern that backtracks without end is ended by the worker's time limit, as the completion's fault.
"""

from __future__ import annotations

from sharpen.config.graders import Regex
from sharpen.graders.base import completion_fault
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample


class RegexGrader:
    """1 or 0; `metrics["format"]`: the pattern matches; with a group, `found`: some match holds the reference."""

    def __init__(self, config: Regex) -> None:
        self._config = config
        self._pattern = config.compiled()

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Match the completion."""
        config, text = self._config, sample.text.strip()
        match = self._pattern.fullmatch(text) if config.mode == "fullmatch" else self._pattern.search(text)
        form = float(match is not None)
        if config.group is None:
            return Grade(form, {"format": form}, f"{config.pattern} {'matches' if match else 'does not match'}")
        try:
            expected = render(config.reference, example, sample).strip()
        except InvalidVariable as error:
            return error.grade()
        found = any((other[config.group] or "").strip() == expected for other in self._pattern.finditer(text))
        if match is None:
            detail = f"the completion does not have the form {config.pattern}"
            return completion_fault("sample_parse_error", detail, {"format": 0.0, "found": float(found)})
        given = (match[config.group] or "").strip()
        equal = given == expected
        verdict = "equals" if equal else "is not"
        return Grade(float(equal), {"format": 1.0, "found": float(found or equal)}, f"{given!r} {verdict} {expected!r}")
