"""Formulas over named numbers, as OpenAI's `multi` grader writes them: `0.8 * right + 0.2 * min(form, 1)`.

    + - * /   ^ or ** (power: binds tightest, groups to the right)   ( )   min max abs floor ceil exp sqrt log

Text becomes a short list of steps over a stack of floats. There is no `eval`; a formula cannot loop or
recurse, its length is bounded, and so is every number (64 bits): `9**9**9` overflows and is an error.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

MAX_CHARACTERS = 1000
MAX_DEPTH = 30
"""Parentheses, signs and powers may nest so deep."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<sign>\*\*|[-+*/^(),]))",
    re.ASCII,
)
FUNCTIONS: dict[str, Callable[..., float]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "sqrt": math.sqrt,
    "log": math.log,
}
ANY_NUMBER_OF_INPUTS = ("min", "max")
POWERS = ("^", "**")
PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
OPERATIONS: dict[str, Callable[..., float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "^": math.pow,
    "**": math.pow,
}


class FormulaError(ValueError):
    """A text is no formula, or a formula has no finite value."""


class Call(NamedTuple):
    """A step that takes so many numbers from the stack and leaves one."""

    name: str
    function: Callable[..., float]
    inputs: int


Step = float | str | Call
"""A number, the name of a value, or a call."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A formula ready to be computed, in postfix order."""

    text: str
    steps: tuple[Step, ...]

    def __call__(self, values: Mapping[str, float]) -> float:
        """The formula's value. Raises FormulaError where any step has no finite real value, as in 1/0."""
        stack: list[float] = []
        for step in self.steps:
            match step:
                case Call(name, function, count):
                    inputs = stack[len(stack) - count :]
                    del stack[len(stack) - count :]
                    stack.append(_apply(name, function, inputs))
                case str():
                    stack.append(values[step])
                case _:
                    stack.append(step)
        (value,) = stack
        return value


def parse(text: str, names: Collection[str]) -> Formula:
    """The formula that a text writes over these names. Raises FormulaError, which tells the position (from 1)."""
    if len(text) > MAX_CHARACTERS:
        raise FormulaError(f"a formula has at most {MAX_CHARACTERS} characters, this one {len(text)}")
    return Formula(text, tuple(_Parser(text, names).whole()))


def _apply(name: str, function: Callable[..., float], inputs: list[float]) -> float:
    said = ", ".join(f"{value:g}" for value in inputs)
    try:
        value = float(function(*inputs))
    except (ArithmeticError, ValueError) as error:
        raise FormulaError(f"`{name}` of {said}: {error}") from error
    if not math.isfinite(value):
        raise FormulaError(f"`{name}` of {said} is not finite")
    return value


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


class _Parser:
    """Precedence climbing; each method appends the steps of what it has read."""

    def __init__(self, text: str, names: Collection[str]) -> None:
        self._names = names
        self._tokens = _tokens(text)
        self._place = 0
        self._depth = 0
        self._steps: list[Step] = []

    def whole(self) -> list[Step]:
        """The steps of the whole text."""
        self._sum(1)
        if self._next.kind != "end":
            raise _unexpected(self._next, "an operator")
        return self._steps

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._next
        self._place += 1
        return token

    def _expect(self, sign: str) -> None:
        if self._next.text != sign:
            raise _unexpected(self._next, f"`{sign}`")
        self._place += 1

    def _sum(self, weakest: int) -> None:
        """Operands joined by operators that bind at least as tightly as `weakest`."""
        self._operand()
        while (strength := PRECEDENCE.get(self._next.text, 0)) >= weakest:
            sign = self._take().text
            self._sum(strength + 1)
            self._call(sign, OPERATIONS[sign], 2)

    def _operand(self) -> None:
        """A signed power: `-2^2` is -4, `2^-1` a half, `2^3^2` is 2^9."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FormulaError(f"position {self._next.position}: nested deeper than {MAX_DEPTH}")
        if self._next.text in ("-", "+"):
            minus = self._take().text == "-"
            self._operand()
            if minus:
                self._call("-", operator.neg, 1)
        else:
            self._atom()
            if self._next.text in POWERS:
                sign = self._take().text
                self._operand()
                self._call(sign, math.pow, 2)
        self._depth -= 1

    def _atom(self) -> None:
        token = self._take()
        if token.kind == "number":
            self._steps.append(_number(token))
        elif token.text == "(":
            self._sum(1)
            self._expect(")")
        elif token.kind != "name":
            raise _unexpected(token, "a number, a name or `(`")
        elif self._next.text == "(":
            self._function(token)
        elif token.text in self._names:
            self._steps.append(token.text)
        else:
            raise FormulaError(
                f"position {token.position}: unknown name `{token.text}`; the names are {', '.join(self._names)}"
            )

    def _function(self, token: _Token) -> None:
        if token.text not in FUNCTIONS:
            known = ", ".join(FUNCTIONS)
            raise FormulaError(f"position {token.position}: unknown function `{token.text}`; there are {known}")
        self._expect("(")
        self._sum(1)
        inputs = 1
        while self._next.text == ",":
            self._place += 1
            self._sum(1)
            inputs += 1
        self._expect(")")
        if inputs > 1 and token.text not in ANY_NUMBER_OF_INPUTS:
            raise FormulaError(f"position {token.position}: `{token.text}` takes one number, not {inputs}")
        # Python's min and max of a single number want a list.
        function: Callable[..., float] = (
            float if inputs == 1 and token.text in ANY_NUMBER_OF_INPUTS else FUNCTIONS[token.text]
        )
        self._call(token.text, function, inputs)

    def _call(self, name: str, function: Callable[..., float], inputs: int) -> None:
        self._steps.append(Call(name, function, inputs))


def _tokens(text: str) -> list[_Token]:
    found, place, end = [], 0, len(text.rstrip())
    while place < end:
        match = TOKEN.match(text, place)
        if match is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise FormulaError(f"position {start + 1}: {text[start]!r} has no place in a formula")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        place = match.end()
    return [*found, _Token("end", "", end + 1)]


def _number(token: _Token) -> float:
    value = float(token.text)
    if not math.isfinite(value):
        raise FormulaError(f"position {token.position}: {token.text} is too large")
    return value


def _unexpected(token: _Token, wanted: str) -> FormulaError:
    seen = f"`{token.text}`" if token.text else "the end"
    return FormulaError(f"position {token.position}: expected {wanted}, found {seen}")
