"""Whose fault hostile, broken and enormous input is: each row of docs/grader-faults.md's table, and formula bombs."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import TypeAdapter, ValidationError

from sharpen.config.graders import Grader, Multi, SingleGrader
from sharpen.graders.multi import combine
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample

READ: TypeAdapter[SingleGrader | Multi] = TypeAdapter(Grader)
DOCUMENT = (Path(__file__).parents[2] / "docs/grader-faults.md").read_text("utf-8")
BAD, ITEM = "sample_parse_error", "invalid_variable_error"
RUNTIME = "python_grader_runtime_error"
HUGE = 10_000_000


def graded(grader: dict[str, Any], *pairs: tuple[dict[str, Any], str]) -> list[Grade]:
    with GraderPool(READ.validate_python(grader), workers=1) as pool:
        return asyncio.run(pool.grade_many([(Example("e", (), item), Sample(text)) for item, text in pairs]))


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


class Row(NamedTuple):
    """A row of the document's table, with an input that it speaks of."""

    input: str
    grader: dict[str, Any]
    item: dict[str, Any]
    output: str
    score: float | None
    fault: str


MATH = {"type": "math"}
JSON = {"type": "json_schema", "schema": {}}
FIELD = {"type": "string_check", "input": "{{ sample.output_json.a }}"}
BACKTRACKS = {"type": "regex", "pattern": "(a+)+$", "time_limit": 0.5}
SIMILAR = {"type": "text_similarity", "evaluation_metric": "rouge_l"}
NUMERIC = {"type": "numeric"}
PARTS = {"right": NUMERIC, "short": {"type": "length", "max": 3}}
SQL = {"type": "sql"}
DATABASE = {"schema": "CREATE TABLE t (a); INSERT INTO t VALUES (1)", "answer": "SELECT a FROM t"}
ADD = {"tests": [{"args": [1, 2], "expected": 3}]}
CODE = {"type": "code_tests", "function": "add", "time_limit": 2.0}
LOOP = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"


def python(body: str) -> dict[str, Any]:
    return {"type": "python", "source": f"def grade(sample, item):\n    {body}\n"}


def formula(text: str) -> dict[str, Any]:
    return {"type": "multi", "graders": PARTS, "calculate_output": text}


TABLE = [
    # the item, or the recipe
    Row("a template names a field that the item lacks", {"type": "string_check"}, {}, "a", None, ITEM),
    Row("the field is null", NUMERIC, {"answer": None}, "1", None, ITEM),
    Row("the reference is no number", NUMERIC, {"answer": {"a": "one"}}, "1", None, ITEM),
    Row("the reference is NaN or Infinity", NUMERIC, {"answer": math.nan}, "1", None, ITEM),
    Row("the reference is no formula", MATH, {"answer": "seven"}, "7", None, ITEM),
    Row("the reference is no JSON", {**JSON, "credit": "f1"}, {"answer": "x"}, "1", None, ITEM),
    Row("the reference has no word", SIMILAR, {"answer": "…"}, "a", None, ITEM),
    Row("the reference query fails", SQL, {**DATABASE, "answer": "SELECT b FROM t"}, "SELECT 1", None, ITEM),
    Row("the script makes no database", SQL, {**DATABASE, "schema": 7}, "SELECT 1", None, ITEM),
    Row("tests that cannot be read", CODE, {"tests": [7]}, "x = 1", None, ITEM),
    Row("an item that no generator made", {"type": "reasoning_gym"}, {"answer": "1"}, "1", None, ITEM),
    Row("a formula without a finite value", formula("1 / right"), {"answer": 1}, "2", None, "formula_parse_error"),
    Row("a part of `multi` at fault", formula("right"), {"answer": "one"}, "1", None, ITEM),
    Row("a Python grader raises", python("return item['missing']"), {}, "", None, RUNTIME),
    Row("a Python grader returns NaN", python("return float('nan')"), {}, "", None, RUNTIME),
    Row("a Python grader returns no number", python("return '1'"), {}, "", None, RUNTIME),
    # the completion
    Row("no number in the completion", NUMERIC, {"answer": 1}, "one", 0.0, BAD),
    Row("NaN or Infinity in the completion", NUMERIC, {"answer": 1}, "NaN, inf, -Infinity", 0.0, BAD),
    Row("no formula in the completion", MATH, {"answer": "7"}, "I give up", 0.0, BAD),
    Row("no JSON in the completion", JSON, {}, '{"a": NaN}', 0.0, BAD),
    Row("JSON nested without end", JSON, {}, "[" * HUGE, 0.0, BAD),
    Row("no such field in its JSON", FIELD, {"answer": 1}, "{}", 0.0, BAD),
    Row("no letters to judge", {"type": "language", "language": "en"}, {}, "1 + 1 = 2", 0.0, BAD),
    Row("a query that does not read", SQL, DATABASE, "DROP TABLE t", 0.0, BAD),
    Row("a query without end", SQL, DATABASE, LOOP, 0.0, "timeout"),
    Row("no program", CODE, ADD, "", 0.0, BAD),
    Row("a program that raises", CODE, ADD, "def add(a, b):\n    return a / 0", 0.0, "exception"),
    Row("a program without end", CODE, ADD, "def add(a, b):\n    while True: pass", 0.0, "timeout"),
    Row("a pattern that backtracks without end", BACKTRACKS, {}, "a" * 40 + "!", 0.0, "timeout"),
    # nobody
    Row("a number of 401 digits beside a right one", NUMERIC, {"answer": 1}, "9" * 401 + " 1", 1.0, ""),
    Row("an exponent of 9 digits beside a right one", NUMERIC, {"answer": 1}, "1e999999999 1", 1.0, ""),
    Row("1e308 beside 1e-308", {**NUMERIC, "abs_tolerance": 1e308}, {"answer": "1e-308"}, "1e308", 1.0, ""),
]  # fmt: skip


def test_each_row_of_the_document_is_what_happens() -> None:
    """Those of one grader share a pool."""
    groups: dict[str, list[Row]] = {}
    for row in TABLE:
        groups.setdefault(json.dumps(row.grader, sort_keys=True), []).append(row)
    for rows in groups.values():
        for row, given in zip(rows, graded(rows[0].grader, *((r.item, r.output) for r in rows)), strict=True):
            assert (given.score, kind(given)) == (row.score, row.fault), f"{row.input}: {given!r:.500}"


def test_the_document_has_these_rows_and_no_others() -> None:
    def written(row: Row) -> str:
        whose = "nobody" if not row.fault else "completion" if row.score is not None else "grader or item"
        score = "none" if row.score is None else f"{row.score:g}"
        kind = f"`{row.fault}`" if row.fault else ""
        return f"| {row.input} | `{row.grader['type']}` | {whose} | {kind} | {score} |"

    table = [line for line in DOCUMENT.splitlines() if line.startswith("| ") and "whose" not in line]
    assert table == [written(row) for row in TABLE]


@pytest.mark.parametrize(
    "bomb",
    [
        "9**9**9",
        "right + 10^10^10",
        "1e308 * 10",
        "-1e308 * 1e308",
        "exp(exp(exp(9)))",
        "exp(1000) - exp(1000)",
        "1 / 0",
        "0 / (right - right)",
        "0 ^ -1",
        "(-8) ^ (1 / 3)",
        "sqrt(-1)",
        "log(0)",
        "floor(1e308 * 1e10)",
        "min(1, 1 / 0)",
    ],
)
def test_a_formula_without_a_finite_value_gives_no_score(bomb: str) -> None:
    given = combine({"right": Grade(1.0), "short": Grade(1.0)}, Multi.model_validate(formula(bomb)).formula())
    assert (given.score, kind(given)) == (None, "formula_parse_error")
    assert bomb in given.explanation


@pytest.mark.parametrize(
    ("bomb", "words"),
    [
        ("(" * 31 + "1" + ")" * 31, "nested deeper than 30"),
        ("-" * 31 + "1", "nested deeper than 30"),
        ("2^" * 31 + "1", "nested deeper than 30"),
        ("1+" * 5_000_000 + "1", "at most 1000 characters"),
        ("1e999", "too large"),
        ("__import__('os')", "unknown function|has no place"),
        ("right.__class__", "has no place"),
        ("wrong", "unknown name `wrong`"),
        ("(lambda: 1)()", "unknown name|has no place"),
        ("right if right else 0", "expected an operator"),
        ("right == 1", "has no place"),
        ("[1][0]", "has no place"),
        ("pow(9, 9)", "unknown function `pow`"),
        ("max()", "expected a number"),
        ("", "expected a number"),
    ],
)
def test_a_formula_that_is_none_is_refused_when_it_is_read(bomb: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        READ.validate_python(formula(bomb))


QUICK: list[dict[str, Any]] = [
    {"type": "string_check", "operation": "ilike"},
    {"type": "math"},
    NUMERIC,
    {"type": "regex", "pattern": "a{3}"},
    {"type": "json_schema", "schema": {"type": "object"}},
    {"type": "length", "max": 5},
    {"type": "format", "tags": ["a"], "answer_tag": "a"},
    {"type": "repetition"},
    {"type": "language", "language": "en"},
    *({"type": "text_similarity", "evaluation_metric": name} for name in ("fuzzy_match", "bleu", "meteor", "rouge_2")),
]


def test_ten_megabytes_and_odd_characters_are_graded_or_are_the_completions_fault() -> None:
    """By all graders of text at once; whatever they say, nothing hangs, and the right answer after them is right."""
    parts = {f"part{number}": {"time_limit": 1.0, **grader} for number, grader in enumerate(QUICK)}
    texts = ["ab " * (HUGE // 3), "\ud800 \x00 \ufffe", "\u202e\u0000" * 1000, "7"]
    config = {"type": "multi", "graders": parts, "calculate_output": " + ".join(parts)}
    for text, given in zip(texts, graded(config, *(({"answer": "7"}, text) for text in texts)), strict=True):
        assert given.score is not None, f"{text[:10]!r}: {given.explanation:.500}"
        assert kind(given) in ("", BAD, "timeout", "output_limit"), f"{text[:10]!r}: {given.fault}"
        assert all(0 <= score <= 1 for score in given.metrics.values())
    assert given.metrics["part2"] == 1


@pytest.mark.parametrize("answer", [True, 3.5, -0.0, [1, [2]], {"a": {"b": None}}, "1e308", 10**30, ["x"] * 1000])
def test_a_reference_of_any_type_gives_a_grade_and_never_an_error(answer: object) -> None:
    for grader in QUICK:
        config = READ.validate_python(grader)
        assert isinstance(config, SingleGrader)
        made: Grade = asyncio.run(config.build().grade(Example("e", (), {"answer": answer}), Sample("1")))
        assert made.score is not None or kind(made) == ITEM, f"{grader}: {made}"


def test_numbers_at_the_edge_of_all_floats_stay_numbers() -> None:
    large = "1.7976931348623157e308"
    values = (large, f"-{large}", "5e-324", "0", "-0", "1e-400")
    given = graded(NUMERIC, *(({"answer": value}, value) for value in values))
    assert [grade.score for grade in given] == [1.0] * len(values)
    given = graded(python("return item['value']"), *(({"value": value}, "") for value in (1e308, -1e308, 5e-324)))
    assert [grade.score for grade in given] == [1e308, -1e308, 5e-324]
    (beyond,) = graded(python("return 10 ** 400"), ({}, ""))
    assert (beyond.score, kind(beyond)) == (None, RUNTIME)
