"""`json_schema` with `credit: f1`: partial credit by fields, by hand and by properties."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as some

from sharpen.config.graders import JsonSchema
from sharpen.graders.json_schema import JsonSchemaGrader, f1
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample

GOLD = {"title": "Dune", "year": 1965, "authors": [{"name": "Frank Herbert"}], "read": True}


def grade(text: str, answer: Any = None, **fields: Any) -> Grade:
    config = JsonSchema.model_validate({"schema": {}, "credit": "f1", **fields})
    item = {"answer": GOLD if answer is None else answer}
    return asyncio.run(JsonSchemaGrader(config).grade(Example("e", (), item), Sample(text)))


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, 1.0),
        ({"year": 1966}, 3 / 4),
        ({"year": 1965.0}, 1.0),
        ({"read": 1}, 3 / 4),
        ({"authors": []}, 3 / 4),
        ({"authors": [{"name": "Frank Herbert"}, {"name": "Another"}]}, 8 / 9),
        ({"authors": "Frank Herbert"}, 3 / 4),
        ({"pages": 412, "isbn": None}, 8 / 10),
    ],
)
def test_f1_counts_values_at_their_paths(change: dict[str, Any], score: float) -> None:
    """With c values right of n and m, F1 = 2·(c/m)·(c/n) / (c/m + c/n) = 2·c / (n + m)."""
    given = grade(json.dumps({**GOLD, **change}))
    assert given.score == pytest.approx(score)
    assert given.metrics == {"format": 1.0, "found": float(score == 1), "valid": 1.0}


def test_credit_is_for_all_or_by_f1() -> None:
    text = json.dumps({**GOLD, "year": 1966})
    assert grade(text, match=["title", "year"]).score == 0.5
    assert grade(text, match=["title", "year"], credit="all").score == 0
    assert grade(text, match=["title", "read"]).score == 1
    assert grade(json.dumps({"title": "Dune"}), match=["title", "year"]).score == pytest.approx(2 / 3)
    assert grade("[1]", match=["title"]).score == 0
    elsewhere = JsonSchema.model_validate({"schema": {}, "credit": "f1", "reference": "{{ item.gold }}"})
    made = asyncio.run(JsonSchemaGrader(elsewhere).grade(Example("e", (), {"gold": [1, 2]}), Sample("[1, 3]")))
    assert made.score == 0.5


def test_a_value_that_is_not_of_the_schema_keeps_its_f1_and_is_not_valid() -> None:
    schema = {"type": "object", "required": ["pages"]}
    lacking = grade(json.dumps(GOLD), schema=schema)
    assert (lacking.score, lacking.metrics) == (1.0, {"format": 1.0, "found": 0.0, "valid": 0.0})
    assert "'pages' is a required property" in lacking.explanation
    within = grade(f"It is {json.dumps({**GOLD, 'pages': 1})}", answer={**GOLD, "pages": 1}, schema=schema)
    assert (within.score, kind(within)) == (0.0, "sample_parse_error")
    assert within.metrics == {"format": 0.0, "found": 1.0, "valid": 0.0}


def test_a_reference_that_is_no_json_or_lacks_a_field_is_the_items_fault() -> None:
    for answer, match in (("no JSON", []), ({"title": "Dune"}, ["year"]), ([1], ["year"])):
        given = grade(json.dumps(GOLD), answer, match=match)
        assert (given.score, kind(given)) == (None, "invalid_variable_error")


JSON = some.recursive(
    some.none() | some.booleans() | some.integers(-2, 2) | some.sampled_from(["", "a"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@for_any(JSON, JSON)
def test_f1_is_one_for_equal_values_and_the_same_from_both_sides(left: Any, right: Any) -> None:
    assert f1(left, left)[0] == 1.0
    assert f1(left, right)[0] == f1(right, left)[0]
    assert (f1(left, right)[0] == 1.0) == (json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True))


def test_a_jail_reads_json_nested_as_deep_as_its_parser_can() -> None:
    deep = "[" * 900 + "]" * 900
    config = JsonSchema.model_validate({"schema": {}, "credit": "f1"})
    with GraderPool(config, workers=1) as pool:
        pairs = [(Example("e", (), {"answer": deep}), Sample(text)) for text in (deep, "[" * 100_000)]
        same, endless = asyncio.run(pool.grade_many(pairs))
    assert same.score == 1
    assert (endless.score, kind(endless)) == (0.0, "sample_parse_error")
