"""What is compared outside the jail, and which part of a completion is its program."""

from __future__ import annotations

from typing import Any

import pytest

from sharpen.graders import compare
from sharpen.graders.code_tests import find_program

NAN = float("nan")


@pytest.mark.parametrize(
    "found, expected, same",
    [
        ((1, 2), [1, 2], True),
        ([1, 2], (1, 2), True),
        ([1, (2, [3])], [1, [2, (3,)]], True),
        ([1, 2], [1, 2, 3], False),
        ([1, 2], [2, 1], False),
        ([], {}, False),
        ([], None, False),
        ("12", ["1", "2"], False),
        ("3", 3, False),
        (b"a", "a", False),
        (NAN, NAN, True),
        (NAN, 1.0, False),
        (1.0, NAN, False),
        ([NAN], [NAN], True),
        (float("inf"), float("inf"), True),
        (float("inf"), float("-inf"), False),
        (float("inf"), 1e308, False),
        (1e308, float("inf"), False),
        ({1, 2}, [2, 1], True),
        ({1, 2}, [1, 2, 2], False),
        ({1, 2}, [1, 1], False),
        ({1}, [1, 1], False),
        ([1, 2], {1, 2}, False),
        ({(1, 2)}, [[1, 2]], True),
        (frozenset({1}), {1}, True),
        ({"{'a': 1}"}, [{"a": 1}], False),
        (True, 1.0, False),
        (1.0, True, False),
        (True, 1, True),
        (False, 0.0, False),
        (None, False, False),
        (None, 0.0, False),
        (3, 3.0, True),
        (3.0, 3, True),
        (10**400, 1.0, False),
        (10**400, float("inf"), False),
        (1.0, 10**400, False),
        (10**400, 10**400, True),
        (10**400, 10**400 + 1, False),
        (2**53, 2**53 + 1, False),
        (0.1 + 0.2, 0.3, True),
        (1.0000005, 1.0, True),
        (1.00001, 1.0, False),
        (5e-10, 0.0, True),
        (1e-8, 0.0, False),
        (-1.0, 1.0, False),
        ("1.0", 1.0, False),
        (1 + 0j, 1.0, False),
        (1 + 0j, 1 + 0j, True),
        ({"a": 1.0}, {"a": 1}, True),
        ({"a": (1,)}, {"a": [1]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: "a"}, {"1": "a"}, False),
        ({"a": 0.1 + 0.2}, {"a": 0.3}, True),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, True),
        ("é", "e\u0301", False),
        ("a ", "a", False),
    ],
)
def test_equal_is_pythons_but_for_tuples_sets_and_fractions(found: Any, expected: Any, same: bool) -> None:
    assert compare.equal(found, expected, 1e-6) is same


def test_equal_takes_the_tolerance_it_is_given() -> None:
    assert not compare.equal(1.0, 1.001, 0.0)
    assert compare.equal(1.0, 1.0, 0.0)
    assert compare.equal([100.0], [101], 0.01)
    assert not compare.equal(100, 101, 0.01), "whole numbers are exact"


@pytest.mark.parametrize(
    "found, expected, same",
    [
        ("3\n", "3", True),
        ("3", "3\n\n\n", True),
        ("3  \n4\t\n", "3\n4", True),
        ("3\r\n4\r\n", "3\n4\n", True),
        ("  *\n ***\n*****\n", "  *\n ***\n*****", True),
        ("*\n***\n*****\n", "  *\n ***\n*****", False),
        ("3\n\n4", "3\n4", False),
        ("", "", True),
        ("\n\n", "", True),
        ("", "3", False),
        ("3 4", "3\n4", False),
        ("3  4", "3 4", False),
        ("0.5", "0.50", True),
        ("0.50000001", "0.5", True),
        ("0.6", "0.5", False),
        ("x = 0.3333333", "x = 0.33333333", True),
        ("y = 0.3333333", "x = 0.33333333", False),
        ("1", "1.0", True),
        ("1.0", "1", False),
        ("1.0.0", "1.0", False),
        ("nan", "1.0", False),
        ("inf", "1.0", False),
        ("1_0.5", "10.5", False),
        ("1.0 2.0", "1.0", False),
        ("abc", "a.c", False),
        ("3.", "3.", True),
        ("yes", "YES", False),
        ("0.5 1.5\n2.5", "0.500 1.50\n2.5000", True),
    ],
)
def test_same_output_forgives_white_space_at_ends_and_digits(found: str, expected: str, same: bool) -> None:
    assert compare.same_output(found, expected, 1e-6) is same


def block(source: str, label: str = "python") -> str:
    return f"```{label}\n{source}\n```"


@pytest.mark.parametrize(
    "text, found",
    [
        pytest.param("x = 1", "x = 1", id="bare"),
        pytest.param(block("x = 1"), "x = 1\n", id="one"),
        pytest.param(f"{block('x = 1')}\nor\n{block('x = 2')}\nend", "x = 2\n", id="the last of two"),
        pytest.param(block("x = 1", "py"), "x = 1\n", id="py"),
        pytest.param(block("x = 1", "Python3"), "x = 1\n", id="Python3"),
        pytest.param(block("x = 1", ""), "x = 1\n", id="no label"),
        pytest.param("So:\n```python\nx = 1\ny =", "x = 1\ny =", id="cut off"),
        pytest.param(f"{block('x = 1')}\nBetter:\n```python\nx = 2\n", "x = 2\n", id="cut off after a whole one"),
        pytest.param("  ```python\n  x = 1\n  ```", "  x = 1\n", id="indented"),
        pytest.param('```python\nx = "```"\n```', 'x = "```"\n', id="backquotes in a text"),
        pytest.param(f"{block('pip install x', 'bash')}\nThen\n{block('x = 1')}", "x = 1\n", id="after a shell's"),
        pytest.param(f"{block('x = 1')}\nIt prints\n{block('5', 'text')}\n", "x = 1\n", id="before an output"),
        pytest.param(f"{block('x = 1')}\nIt prints\n{block('5', '')}\n", "x = 1\n", id="before an output of no label"),
        pytest.param("```python\r\nx = 1\r\n```\r\n", "x = 1\r\n", id="carriage returns"),
        pytest.param("", None, id="empty"),
        pytest.param(" \n", None, id="blank"),
        pytest.param("```python\n```", None, id="an empty block"),
    ],
)
def test_the_program_is_the_last_python_block_or_else_the_whole(text: str, found: str | None) -> None:
    assert find_program(text) == found
