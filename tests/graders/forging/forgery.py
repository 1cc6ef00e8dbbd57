"""What a forgery is, and the tasks that forgeries pretend to have solved."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["calls", "asserts", "check", "stream"]

CALLS: list[dict[str, Any]] = [
    {"args": [1, 2], "expected": 3},
    {"args": [10, -4], "expected": 6},
    {"args": [100, 23], "expected": 123},
]
ASSERTS = ["assert add(1, 2) == 3", "assert add(10, -4) == 6", "assert add(100, 23) == 123"]
CHECK = f"METADATA = {{}}\n\ndef check(candidate):\n{textwrap.indent(chr(10).join(ASSERTS), '    ')}\n".replace(
    "add(", "candidate("
)
STREAM: list[dict[str, Any]] = [
    {"input": "1 2\n", "output": "3\n"},
    {"input": "10 -4\n", "output": "6\n"},
    {"input": "100 23\n", "output": "123\n"},
]
TASKS: dict[Kind, Any] = {"calls": CALLS, "asserts": ASSERTS, "check": CHECK, "stream": STREAM}
"""The same sum of two numbers, tested in four ways."""


@dataclass(frozen=True)
class Forgery:
    """A program that is not right."""

    name: str
    source: str
    kinds: tuple[Kind, ...] = ("calls",)
    how: str = "status"  # of `naive.rewards`, which is fooled
    no_control: str = ""  # why no naive harness rewards it
    tests: Any = None  # instead of the sum
    function: str = "add"
    prefix: str = ""
    earned: float = 0.0  # the share of the tests that it honestly passes
    slow: bool = False  # it needs the whole time limit

    def cases(self, kind: Kind) -> Any:
        """The tests, as a row has them."""
        return TASKS[kind] if self.tests is None else self.tests


def forged(value: str = "true", number: int | str = "number") -> str:
    """Source of `forge(number)`, which writes a frame in the harness's own words to descriptor 3."""
    return f"""
import os, struct
def forge(number=0):
    body = ('["tuple",[%s,"value",{value}]]' % {number}).encode()
    os.write(3, struct.pack(">I", len(body)) + body)
"""
