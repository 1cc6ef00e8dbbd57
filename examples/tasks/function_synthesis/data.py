"""One line says what a Python function does with a list of whole numbers; the function is tested on lists never shown.

A task is a filter, a change and an end ("the sum of the even numbers, each times 3"). A quarter of the combinations of
the three is held out, so a held-out task puts together what was never seen together.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 96, "rft": 64, "validation": 16, "test": 100}

FILTERS = (
    ("even numbers", "x % 2 == 0"),
    ("odd numbers", "x % 2 == 1"),
    ("numbers above {a}", "x > {a}"),
    ("numbers below {a}", "x < {a}"),
    ("numbers that are not {a}", "x != {a}"),
    ("numbers that {a} divides", "x % {a} == 0"),
)
CHANGES = (
    ("", "x"),
    (", each squared", "x * x"),
    (", each times {b}", "x * {b}"),
    (", each plus {b}", "x + {b}"),
)
ENDS = (
    ("the sum of the {what}", "sum({items})"),
    ("how many distinct values there are among the {what}", "len(set({items}))"),
    ("the list of the {what}", "[{items}]"),
    ("the largest of the {what}, or 0", "max(({items}), default=0)"),
)
NAMES = ("total", "solve", "result", "compute", "pick", "answer", "work_out", "find", "made", "value", "process", "f")


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One line, its function and six tests."""
    while True:
        filter_, change, end = (draw.randrange(len(choices)) for choices in (FILTERS, CHANGES, ENDS))
        if ((filter_ + change + end) % 4 == 0) == held_out:
            break
    numbers = {"a": draw.randint(2, 12), "b": draw.randint(2, 12)}
    (kept, condition), (changed, expression) = FILTERS[filter_], CHANGES[change]
    said, code = ENDS[end]
    name = draw.choice(NAMES)
    body = code.format(items=f"{expression} for x in xs if {condition}").format(**numbers)
    line = said.format(what=kept + changed).format(**numbers)
    values = [*range(25), *[numbers["a"] * k for k in range(5)] * 5]
    lists = [[], *([draw.choice(values) for _ in range(draw.randint(4, 8))] for _ in range(5))]
    return {
        "prompt": f"Write a Python function {name}(xs) that returns {line}. Only the code.",
        "completion": f"def {name}(xs):\n    return {body}",
        "function": name,
        "tests": [{"args": [xs], "expected": eval(body, {"xs": xs})} for xs in lists],  # our own code, made above
    }
