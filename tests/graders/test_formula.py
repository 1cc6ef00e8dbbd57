"""Formulas: Python's own arithmetic on the same text is the truth; everything else has a bound and a position."""

from __future__ import annotations

import math
import random

import pytest

from sharpen.config.formula import MAX_CHARACTERS, MAX_DEPTH, FormulaError, parse

VALUES = {"a": 0.5, "b": -2.0, "c_1": 3.0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("8 - 3 - 2", 3.0),
        ("16 / 4 / 2", 2.0),
        ("2 ^ 3 ^ 2", 512.0),
        ("2**3**2", 512.0),
        ("-2^2", -4.0),
        ("2^-1", 0.5),
        ("--3", 3.0),
        ("+a", 0.5),
        ("-a - -b", -2.5),
        ("1.5e2 + .5 + 2.", 152.5),
        ("min(a, b, c_1)", -2.0),
        ("max(a)", 0.5),
        ("abs(b) + floor(a) + ceil(a)", 3.0),
        ("sqrt(16) + exp(0) + log(1)", 5.0),
        ("0.8 * a + 0.2 * min(c_1, 1)", 0.6),
    ],
)
def test_formulas_by_hand(text: str, value: float) -> None:
    assert parse(text, VALUES)(VALUES) == pytest.approx(value, abs=1e-15)


def expression(rng: random.Random, depth: int) -> str:
    """A random formula that Python reads alike."""
    kind = rng.choice(("number", "name", "binary", "binary", "binary", "sign", "power", "function", "braces"))
    if depth == 0 or kind == "number":
        return rng.choice(("0", "1", "2.5", ".25", "3e-1", "17"))
    inner = [expression(rng, depth - 1) for _ in range(3)]
    match kind:
        case "name":
            return rng.choice(list(VALUES))
        case "binary":
            return f"{inner[0]} {rng.choice('+-*/')} {inner[1]}"
        case "sign":
            return f"{rng.choice('+-')}{inner[0]}"
        case "power":
            return f"({inner[0]}) ** {rng.choice(('2', '-1', '0.5', '3'))}"
        case "function":
            name = rng.choice(("min", "max", "abs", "floor", "ceil", "exp", "sqrt", "log"))
            return f"{name}({', '.join(inner[: 3 if name in ('min', 'max') else 1])})"
        case _:
            return f"({inner[0]})"


def python(text: str) -> float | None:
    """What Python makes of it with floats; None where there is no finite real number at some step."""
    known = {name: getattr(math, name) for name in ("floor", "ceil", "exp", "sqrt", "log")}
    scope = {**known, "min": min, "max": max, "abs": abs, **VALUES}
    try:
        value = eval(text, {"__builtins__": {}}, scope)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return None if isinstance(value, complex) or not math.isfinite(value) else float(value)


def test_random_formulas_agree_with_python() -> None:
    rng, compared = random.Random(5), 0
    for _ in range(3000):
        text = expression(rng, 4)
        for written in (text, text.replace("**", "^").replace(" ", "")):
            try:
                value = parse(written, VALUES)(VALUES)
            except FormulaError:
                assert python(text) is None or "inf" in text, text
                continue
            expected = python(text)
            assert expected is not None and value == pytest.approx(expected, rel=1e-12), text
            compared += 1
    assert compared > 3000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "position 1: expected a number, a name or `\\(`, found the end"),
        ("a +", "position 4: .* found the end"),
        ("a b", "position 3: expected an operator, found `b`"),
        ("(a", "position 3: expected `\\)`"),
        ("a)", "position 2: expected an operator, found `\\)`"),
        ("a + nope", "position 5: unknown name `nope`; the names are a, b, c_1"),
        ("pow(a, 2)", "position 1: unknown function `pow`; there are min, max"),
        ("sqrt(a, b)", "position 1: `sqrt` takes one number, not 2"),
        ("min()", "position 5: expected a number"),
        ("min", "position 1: unknown name `min`"),
        ("a % 2", "position 3: '%' has no place"),
        ("a  $", "position 4: '\\$' has no place"),
        ("a.__class__", "position 2: '.' has no place"),
        ("1e999 * a", "position 1: 1e999 is too large"),
        ("²", "position 1: '²' has no place"),
        ("+".join("a" * MAX_CHARACTERS), "at most 1000 characters"),
        ("(" * 200 + "a" + ")" * 200, f"position {MAX_DEPTH + 1}: nested deeper"),
        ("-" * 200 + "a", "nested deeper"),
        ("2^" * 200 + "2", "nested deeper"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_position(text: str, words: str) -> None:
    with pytest.raises(FormulaError, match=words):
        parse(text, VALUES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / (a - 0.5)", "`/` of 1, 0: "),
        ("9 ** 9 ** 9", "too large|range|Result"),
        ("0 ^ -1", "`\\^` of 0, -1"),
        ("(-8) ^ (1 / 3)", "`\\^` of -8"),
        ("sqrt(b)", "`sqrt` of -2"),
        ("log(0)", "`log` of 0"),
        ("exp(1000)", "`exp` of 1000"),
        ("min(1, 1e308 * 10)", "`\\*` of 1e\\+308, 10 is not finite"),
    ],
)
def test_a_step_without_a_finite_value_is_an_error_though_it_parses(text: str, words: str) -> None:
    with pytest.raises(FormulaError, match=words):
        parse(text, VALUES)(VALUES)


def test_the_longest_flat_formula_is_computed_without_recursion() -> None:
    terms = MAX_CHARACTERS // 2
    assert parse("+".join("1" * terms), ())({}) == terms
