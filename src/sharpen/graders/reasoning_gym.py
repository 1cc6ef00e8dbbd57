"""`reasoning_gym`: the verifier of the example's own generator, strict."""

from __future__ import annotations

import copy
import json
import re
from itertools import islice
from typing import Any

import reasoning_gym  # type: ignore[import-untyped]

from sharpen.config.graders import ReasoningGymScore
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.types import Example, Grade, Sample

FULL_MARKS = 1 - 1e-9
NEEDED = ("question", "answer", "metadata", "generator")
CANDIDATES = 64
"""So many places of a completion out of form are tried for the right answer."""


class ReasoningGymGrader:
    """1 for full marks, else 0; the verifier's partial credit goes to `metrics["partial"]`.

    With a pattern, `metrics["format"]` says whether the completion has its form, and `metrics["found"]`
    whether the right answer stands anywhere in it: what the model knows, in form or not.
    """

    def __init__(self, config: ReasoningGymScore) -> None:
        self._pattern = re.compile(config.pattern) if config.pattern else None
        self._datasets: dict[str, Any] = {}

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Score the answer."""
        missing = [name for name in NEEDED if name not in example.item]
        if missing:
            return grader_fault("invalid_variable_error", f"the item lacks {missing}: is it from reasoning_gym?")
        answer = sample.text.strip()
        form: dict[str, float] = {}
        if self._pattern:
            match = self._pattern.fullmatch(answer)
            if match is None:
                detail = f"the completion does not have the form {self._pattern.pattern}"
                found = float(self._found(example, answer, self._pattern))
                return completion_fault("sample_parse_error", detail, {"format": 0.0, "found": found, "partial": 0.0})
            answer = (match[1] or "") if self._pattern.groups else answer
            form["format"] = 1.0
        expected = example.item["answer"]
        try:
            partial = self._score(example, answer)
        except Exception as error:
            self._score(example, expected)  # it works for the right answer, so the completion is at fault
            detail = f"the verifier cannot read the answer: {type(error).__name__}: {error}"
            return completion_fault("sample_parse_error", detail, {**form, "partial": 0.0})
        correct = float(partial >= FULL_MARKS)
        if form:
            form["found"] = correct
        return Grade(correct, {**form, "partial": partial}, f"expected {expected!r:.200}")

    def _found(self, example: Example, text: str, pattern: re.Pattern[str]) -> bool:
        """Whether any match of the pattern inside the text has full marks."""
        for match in islice(pattern.finditer(text), CANDIDATES):
            try:
                if self._score(example, (match[1] or "") if pattern.groups else match[0]) >= FULL_MARKS:
                    return True
            except Exception:  # the verifier cannot read this candidate
                continue
        return False

    def _score(self, example: Example, answer: str) -> float:
        entry = {name: copy.deepcopy(example.item[name]) for name in ("question", "answer", "metadata")}
        return float(self._dataset(example).score_answer(answer, entry))

    def _dataset(self, example: Example) -> Any:
        """The generator's data set: its verifier may depend on its parameters."""
        generator, parameters = example.item["generator"], dict(example.item.get("params") or {})
        key = json.dumps([generator, parameters], sort_keys=True, default=repr)
        if key not in self._datasets:
            self._datasets[key] = reasoning_gym.create_dataset(generator, **{**parameters, "size": 1, "seed": 0})
        return self._datasets[key]
