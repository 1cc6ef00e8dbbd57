"""An income and a table of three brackets; what is the tax? Each bracket's rate is for the part of the income in it."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

COUNTS = {"sft": 96, "rft": 64, "validation": 16, "test": 90}

PROMPT = """Tax by brackets, amounts in thousands.
up to {low}: {rates[0]}%
{low} to {high}: {rates[1]}%
over {high}: {rates[2]}%
Income: {income}"""


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """Tables whose limits add up to a multiple of 40 are held out."""
    while True:
        low, high = sorted(draw.sample(range(10, 80, 10), 2))
        if ((low + high) % 40 == 0) == held_out:
            break
    rates = sorted(draw.sample(range(10, 60, 10), 3))
    limits = (0, low, high, 100)
    bracket = draw.randrange(3)
    income = draw.randint(limits[bracket] + 1, limits[bracket + 1] - 1)
    lines, tax = [f"rate {rates[bracket]}%"], 0
    for rate, (start, end) in zip(rates, pairwise(limits), strict=True):
        if income > start:
            part = min(income, end) - start
            lines.append(f"{part} at {rate}%: {_tenths(part * rate // 10)}")
            tax += part * rate // 10
    lines.append(f"tax {_tenths(tax)}")
    return {
        "prompt": PROMPT.format(low=low, high=high, rates=rates, income=income),
        "completion": "\n".join(lines),
        "answer": _tenths(tax),
        "rate": str(rates[bracket]),
    }


def _tenths(value: int) -> str:
    """A number of tenths, as it is written: 40 is 4, 28 is 2.8."""
    return str(value // 10) if value % 10 == 0 else f"{value // 10}.{value % 10}"
