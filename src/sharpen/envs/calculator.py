"""A calculator: arithmetic on numbers, by a walk over the parsed expression. Nothing is evaluated as code."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable

from sharpen.envs.base import ToolError

Number = int | float

LENGTH, BITS = 200, 2048
"""The longest expression in characters, and the largest whole number in bits."""

BINARY: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}


def calculator(expression: str) -> str:
    """Evaluate arithmetic: + - * / // % ** and parentheses, such as (3 + 4) * 2."""
    if len(expression) > LENGTH:
        raise ToolError(f"the expression is longer than {LENGTH} characters")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
        return format(value, ".12g") if isinstance(value, float) else str(value)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError(f"not an arithmetic expression: {expression}") from None
    except (ArithmeticError, TypeError) as error:
        raise ToolError(f"cannot compute {expression}: {error}") from None


TOOLS = (calculator,)


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in UNARY:
            return UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            one, other = _value(left), _value(right)
            if isinstance(op, ast.Pow):
                _check_power(one, other)
            return _bounded(BINARY[type(op)](one, other))
    raise ValueError("no number, operation or parenthesis")


def _bounded(value: Number | complex) -> Number:
    if isinstance(value, complex):
        raise ArithmeticError("the result is no real number")
    if not math.isfinite(value) if isinstance(value, float) else value.bit_length() > BITS:
        raise OverflowError("the result is too large")
    return value


def _check_power(base: Number, exponent: Number) -> None:
    """Refuse a power of whole numbers before it is computed, where it would be too large."""
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and exponent > 0 and abs(base) > 1 and abs(int(base)).bit_length() * exponent > 2 * BITS:
        raise OverflowError("the result is too large")
