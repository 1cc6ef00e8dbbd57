"""A small Python function with one bug, and a line that says what it should do; the answer is the mended function.

Every wrong function fails at least one test, so copying it is never right. A fifth of the pairs of what is asked and
of which numbers ("the product of the numbers below 3") is held out, so a held-out function was never seen whole.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 80, "validation": 16, "test": 100}

CONDITIONS = (
    ("above {a}", "x > {a}"),
    ("below {a}", "x < {a}"),
    ("divisible by {a}", "x % {a} == 0"),
    ("equal to {a}", "x == {a}"),
    ("other than {a}", "x != {a}"),
    ("of at least {a}", "x >= {a}"),
)
OPPOSITES = {" > ": " < ", " < ": " > ", " == ": " != ", " != ": " == ", " >= ": " <= "}
CHANGES = (
    ("sum", "0", "result += x"),
    ("count", "0", "result += 1"),
    ("product", "1", "result *= x"),
    ("sum of the squares", "0", "result += x * x"),
    ("list", "[]", "result.append(x)"),
)
BUGS = ("start", "condition", "number", "operation", "return", "name")
TRAINED_NAMES = ("total", "solve", "compute", "work_out", "find", "process", "f", "check")
HELD_OUT_NAMES = ("evaluate", "reckon", "g")

CODE = """def {name}(xs):
    result = {start}
    for x in xs:
        if {condition}:
            {change}
    return {returned}"""


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One wrong function, the mended one and six tests."""
    while True:
        condition, what = draw.randrange(len(CONDITIONS)), draw.randrange(len(CHANGES))
        if ((condition + what) % 5 == 0) == held_out:
            break
    number = draw.randint(2, 9)
    said, test = (text.format(a=number) for text in CONDITIONS[condition])
    asked, start, change = CHANGES[what]
    right = {
        "name": draw.choice(HELD_OUT_NAMES if held_out else TRAINED_NAMES),
        "start": start,
        "condition": test,
        "change": change,
        "returned": "result",
    }
    wrong = right | _bug(draw, draw.choice(BUGS), right, number)
    lists = [[], [number], *([draw.randint(1, 12) for _ in range(draw.randint(4, 7))] for _ in range(4))]
    tests = [{"args": [xs], "expected": _run(CODE.format(**right), right["name"], xs)} for xs in lists]
    if all(_run(CODE.format(**wrong), right["name"], test["args"][0]) == test["expected"] for test in tests):
        return row(draw, held_out)  # on these lists the bug does not show
    return {
        "prompt": f"Mend this function: it should return the {asked} of the numbers {said}. Only the code.\n"
        + CODE.format(**wrong),
        "completion": CODE.format(**right),
        "function": right["name"],
        "tests": tests,
    }


def _bug(draw: random.Random, kind: str, right: dict[str, str], number: int) -> dict[str, str]:
    """The one line that is wrong."""
    condition, change = right["condition"], right["change"]
    sign = next(sign for sign in OPPOSITES if sign in condition)
    return {
        "start": {"start": str(draw.randint(2, 9))},
        "condition": {"condition": condition.replace(sign, OPPOSITES[sign])},
        "number": {"condition": condition.replace(str(number), str(number + draw.randint(1, 5)))},
        "operation": {"change": change.replace("+=", "-=").replace("*=", "+=").replace("append", "remove")},
        "return": {"returned": draw.choice(("x", "xs", "None"))},
        "name": {"condition": condition.replace("x ", "xs ")},
    }[kind]


def _run(code: str, name: str, xs: list[int]) -> Any:
    """What the function says of a list; our own code, made above."""
    space: dict[str, Any] = {}
    exec(code, space)
    try:
        return space[name](xs)
    except (TypeError, ValueError, AttributeError, UnboundLocalError) as error:
        return type(error).__name__
