"""A number and three small steps up or down: 34 + 7 - 5 + 8. The answer alone, or the steps and then the answer.

Both recipes train on the same problems; `alone` and `worked` are the two ways of answering them.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 160, "rft": 100, "validation": 16, "test": 200}


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One problem; numbers ending in 3 or 8 begin held-out problems and no trained one."""
    first = draw.randint(30, 99)
    while (first % 10 in (3, 8)) != held_out:
        first = draw.randint(30, 99)
    value, problem, steps = first, str(first), []
    for _ in range(3):
        sign, change = draw.choice("+-"), draw.randint(2, 9)
        after = value + change if sign == "+" else value - change
        problem += f" {sign} {change}"
        steps.append(f"{value} {sign} {change} = {after}")
        value = after
    return {
        "prompt": f"{problem} = ?",
        "alone": str(value),
        "worked": "\n".join(steps),
        "answer": value,
    }
