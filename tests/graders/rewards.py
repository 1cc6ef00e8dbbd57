"""Reward functions as users of TRL write them; the workers of `test_adapters_trl.py` import it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Messages = list[dict[str, str]]


def written(prompts: list[Any], completions: list[Any], out: list[str], **kwargs: Any) -> list[float]:
    """Writes down what it is called with."""
    plain = {name: values for name, values in kwargs.items() if not callable(values)}
    seen = {"prompts": prompts, "completions": completions, "columns": plain, "more": sorted(set(kwargs) - set(plain))}
    Path(out[0]).write_text(json.dumps(seen))
    return [0.0] * len(completions)


def length(completions: list[Messages], **kwargs: Any) -> list[float]:
    """Of each completion, in characters."""
    return [float(len(completion[0]["content"])) for completion in completions]


async def length_later(completions: list[Messages], **kwargs: Any) -> list[float]:
    """`length`, asynchronously."""
    await asyncio.sleep(0)
    return length(completions)


def longest(completions: list[Messages], **kwargs: Any) -> list[float]:
    """1 for the longest of the batch."""
    lengths = length(completions)
    return [float(each == max(lengths)) for each in lengths]


def of_maths(completions: list[Messages], topic: list[str], **kwargs: Any) -> list[float | None]:
    """Applies to one topic only."""
    return [1.0 if each == "maths" else None for each in topic]


def as_said(completions: list[Messages], **kwargs: Any) -> Any:
    """Does what the first completion says."""
    order = completions[0][0]["content"]
    rewards: list[Any] = [1.0] * len(completions)
    match order:
        case "raise":
            raise ValueError("no")
        case "hang":
            time.sleep(60)
        case "exit":
            os._exit(3)
        case "leave":
            raise SystemExit(3)
        case "short":
            return rewards[1:]
        case "text":
            return "1" * len(completions)
        case "mapping":
            return dict(enumerate(rewards))
        case "number":
            return 1.0
        case "array":
            return np.array([0.25] * len(completions), dtype=np.float32)
        case "flags":
            return (number == 0 for number in range(len(completions)))
    rewards[0] = {"nan": float("nan"), "inf": float("inf"), "huge": 10**400, "word": "1.0", "list": [1.0]}.get(order, 1)
    return rewards


def logging(
    completions: list[Messages],
    log_extra: Callable[[str, list[Any]], None],
    log_metric: Callable[[str, float], None],
    **kwargs: Any,
) -> list[float]:
    """Logs as TRL lets it."""
    texts = [completion[0]["content"] for completion in completions]
    log_extra("characters", [len(text) for text in texts])
    log_extra("upper", [text.upper() for text in texts])
    if "uneven" in texts:
        log_extra("upper", ["once more"])
    log_metric("mean", 1.0)
    log_metric("mean", 2.0)
    log_metric("never", float("nan"))
    return [1.0] * len(texts)


def of_tokens(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """Needs what only a trainer has."""
    return [float(len(ids)) for ids in completion_ids]


def with_state(completions: list[Messages], trainer_state: Any = None, **kwargs: Any) -> list[float]:
    """Can do without what only a trainer has."""
    return [0.5 if trainer_state is None else 1.0] * len(completions)


class Weighted:
    """A reward that is an object."""

    def __call__(self, completions: list[Messages], weight: list[float], **kwargs: Any) -> list[float]:
        """The column."""
        return weight


weighted = Weighted()
