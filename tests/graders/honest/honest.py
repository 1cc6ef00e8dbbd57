"""What an honest program is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Honest:
    """A program that is right, and a small change that makes it wrong."""

    name: str
    source: str
    tests: Any
    right: str  # this part of the source
    wrong: str  # with this in its place is a mistake
    function: str = "solve"

    @property
    def mutant(self) -> str:
        """The program with the mistake."""
        return self.source.replace(self.right, self.wrong, 1)


def calls(*cases: tuple[list[Any], Any]) -> list[dict[str, Any]]:
    """Tests that call the function: arguments and what is expected."""
    return [{"args": arguments, "expected": expected} for arguments, expected in cases]


def streams(*cases: tuple[str, str]) -> list[dict[str, str]]:
    """Tests of a whole program: input and output."""
    return [{"input": given, "output": wanted} for given, wanted in cases]
