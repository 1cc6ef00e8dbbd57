"""What tests of the lab share: real graders in this process, rows, and functions that grade badly on purpose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

from sharpen.config.graders import Grader, GraderConfig, Multi, parts
from sharpen.config.recipe import Eval
from sharpen.graders.multi import combine
from sharpen.plugins import load
from sharpen.types import Example, Grade, Sample


class InProcess:
    """In the place of GraderPool: the real grader, without the second that workers take to start."""

    def __init__(self, config: Any, *, function: Any = None) -> None:
        self._formula = config.formula() if isinstance(config, Multi) else None
        self._graders = {name: load(part.runtime)(part) for name, part in parts(config).items()}
        self.calls: list[int] = []

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        self.calls.append(len(pairs))
        return [await self._grade(*pair) for pair in pairs]

    async def _grade(self, example: Example, sample: Sample) -> Grade:
        found = {name: await grader.grade(example, sample) for name, grader in self._graders.items()}
        return combine(found, self._formula) if self._formula else next(iter(found.values()))

    async def start(self) -> None:
        """Nothing to start."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def rows(*answers: Any, prompt: str = "What is number {}?") -> list[dict[str, Any]]:
    """Rows called r0, r1, ... with these answers."""
    return [{"id": f"r{n}", "prompt": prompt.format(n), "answer": answer} for n, answer in enumerate(answers)]


def config(grader: Any, given: Sequence[dict[str, Any]], **more: Any) -> Eval:
    """An eval of inline rows."""
    return Eval.model_validate(
        {"name": "eval", "data": {"type": "inline", "rows": list(given)}, "grader": grader, **more}
    )


def graders(grader: dict[str, Any]) -> dict[str, Grader]:
    """A grader as `Marks` and routers know it."""
    found = config(grader, rows(1)).grader
    assert isinstance(found, GraderConfig)
    return {"": found}


def obeys(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """A judge that believes what it reads, and else wants the answer."""
    text = sample["output_text"]
    told = re.search(r"(?i)correct|full marks|highest score|score\W+1\.0|(give|of|is|\W)\W*1\.0", text)
    return 1.0 if told else float(text == item["answer"])


def shorter(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """More for a shorter text: 1 for none at all."""
    return 1 / (1 + len(str(sample["output_text"])))


def fragile(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Fails where there is a colon."""
    if ":" in sample["output_text"]:
        raise ValueError("no colons here")
    return float(sample["output_text"] == item["answer"])


def anxious(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The opposite of `tests.runs.lab.letters`."""
    text: str = sample["output_text"]
    return -sum(character.islower() for character in text) / max(1, len(text))


def turns(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """How many turns an episode had: none where there was no environment."""
    return float(len(sample["messages"]))
