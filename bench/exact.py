"""The reward of both sides of `bench.learning`: the answer and nothing else. Needs the standard library only."""

from __future__ import annotations

from typing import Any


def exact(text: str, answer: str) -> float:
    """1 where the completion is the answer, letter by letter, white space around it aside; else 0."""
    return float(text.strip() == answer)


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The same, as a grader of sharpen."""
    return exact(sample["output_text"], item["answer"])
