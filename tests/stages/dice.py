"""Graders of an operator, which worker processes import: they obey the file that SHARPEN_TEST_ORDERS names."""

from __future__ import annotations

import json
import os
import random
from typing import Any


def orders() -> dict[str, Any]:
    """What the test wants of the grader now."""
    with open(os.environ["SHARPEN_TEST_ORDERS"]) as file:
        return dict(json.load(file))


def roll(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """Another number each time, whatever the sample."""
    return random.SystemRandom().random()


def fail(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The share of lower-case letters, unless the first character is one the orders name."""
    text: str = sample["output_text"]
    if text[:1] in orders()["fails"]:
        raise ValueError(f"out of order \ud800: {text!r}")
    return sum(character.islower() for character in text) / max(1, len(text))
