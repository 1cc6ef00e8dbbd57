"""Reward functions as users of verifiers write them; the workers of `test_adapters_rubric.py` import it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

Messages = list[dict[str, Any]]


def exact(completion: Messages, answer: str) -> float:
    """The last turn is the answer."""
    return float(completion[-1]["content"] == answer)


def words(completion: Messages, **kwargs: Any) -> int:
    """How many there are."""
    return len(completion[-1]["content"].split())


async def later(prompt: Messages, completion: Messages) -> float:
    """Turns before and after, asynchronously."""
    await asyncio.sleep(0)
    return float(10 * len(prompt) + len(completion))


def parsed(parser: Any, completion: Messages, answer: str) -> bool:
    """What the parser finds is the answer."""
    return bool(parser.parse_answer(completion) == answer)


def first(state: dict[str, Any]) -> float:
    """Leaves something for the next."""
    state["seen"] = state["answer"]
    return 0.0


def second(state: dict[str, Any], answer: str, prompt: Messages, completion: Messages, info: Any, task: Any) -> float:
    """Finds it, and all else under its own name."""
    expected = {"prompt": prompt, "completion": completion, "answer": answer, "info": info, "task": task}
    return float(state == {**expected, "seen": answer})


def of_info(info: dict[str, float]) -> float:
    """A field of `info`."""
    return info.get("points", -1.0)


def of_field(difficulty: float, unused: str = "") -> float:
    """A field of the row."""
    return difficulty


def all_names(**kwargs: Any) -> float:
    """Whether everything is there."""
    return float({"prompt", "completion", "answer", "state", "info", "task", "parser", "difficulty"} == set(kwargs))


def raising(completion: Messages) -> float:
    """Never returns."""
    raise ValueError("no")


def leaving(completion: Messages) -> float:
    """Never returns."""
    raise SystemExit(3)


def hanging(completion: Messages) -> float:
    """Never returns."""
    time.sleep(60)
    return 1.0


def nan(completion: Messages) -> float:
    """No number."""
    return float("nan")


def nothing(completion: Messages) -> None:
    """No number."""


def of_group(completions: list[Messages], answers: list[str]) -> list[float]:
    """Compares a group's attempts."""
    return [0.0] * len(completions)


class Boxes:
    """A parser of one's own."""

    def parse_answer(self, completion: Messages) -> str:
        """What stands in brackets."""
        return str(completion[-1]["content"].partition("[")[2].partition("]")[0])


boxes = Boxes()
