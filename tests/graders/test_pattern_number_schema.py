"""`regex`, `numeric` and `json_schema` against answers worked by hand, and each field of their configs."""

from __future__ import annotations

import asyncio
import json
from fractions import Fraction
from typing import Any

import pytest

from sharpen.config.graders import JsonSchema, Numeric, Regex
from sharpen.config.load import dump, parse
from sharpen.errors import ConfigError
from sharpen.graders.json_schema import JsonSchemaGrader
from sharpen.graders.numeric import NumericGrader, numbers
from sharpen.graders.pool import GraderPool
from sharpen.graders.regex import RegexGrader
from sharpen.types import Example, Grade, Sample


def grade(config: Regex | Numeric | JsonSchema, text: str, **item: Any) -> Grade:
    made: Grade = asyncio.run(config.build().grade(Example("e", (), item), Sample(text)))
    return made


def kind(given: Grade) -> str:
    return given.fault.kind if given.fault else ""


def recipe(grader: dict[str, Any]) -> dict[str, Any]:
    return {"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader}]}


def refused(grader: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(recipe(grader))
    return str(caught.value)


def test_configs_name_their_code() -> None:
    built = [type(c.build()) for c in (Regex(pattern="a"), Numeric(), JsonSchema(schema={}))]
    assert built == [RegexGrader, NumericGrader, JsonSchemaGrader]


# regex


@pytest.mark.parametrize(
    ("settings", "text", "score"),
    [
        ({"pattern": r"\d+"}, "about 5 of them", 1.0),
        ({"pattern": r"\d+"}, "about five", 0.0),
        ({"pattern": r"\d+", "mode": "fullmatch"}, "about 5 of them", 0.0),
        ({"pattern": r"\d+", "mode": "fullmatch"}, " 5\n", 1.0),
        ({"pattern": "paris"}, "Paris", 0.0),
        ({"pattern": "paris", "flags": ["ignorecase"]}, "Paris", 1.0),
        ({"pattern": "a.b"}, "a\nb", 0.0),
        ({"pattern": "a.b", "flags": ["dotall"]}, "a\nb", 1.0),
        ({"pattern": "^b"}, "a\nb", 0.0),
        ({"pattern": "^b", "flags": ["dotall", "multiline"]}, "a\nb", 1.0),
        ({"pattern": "a b"}, "ab", 0.0),
        ({"pattern": "a b # spaces do not count", "flags": ["verbose"]}, "ab", 1.0),
        ({"pattern": r"\w"}, "é", 1.0),
        ({"pattern": r"\w", "flags": ["ascii"]}, "é", 0.0),
    ],
)
def test_regex_matches(settings: dict[str, Any], text: str, score: float) -> None:
    given = grade(Regex.model_validate(settings), text)
    assert (given.score, given.metrics, given.fault) == (score, {"format": score}, None)


@pytest.mark.parametrize(
    ("settings", "text", "score", "metrics"),
    [
        ({"group": 1}, "<a>7</a>", 1.0, (1.0, 1.0)),
        ({"group": "n"}, "<a> 7 </a>", 1.0, (1.0, 1.0)),
        ({"group": 0}, "<a>7</a>", 0.0, (1.0, 0.0)),
        ({"group": 1}, "<a>8</a> or <a>7</a>", 0.0, (1.0, 1.0)),
        ({"group": 1, "mode": "fullmatch"}, "so <a>7</a>", 0.0, (0.0, 1.0)),
        ({"group": 1, "mode": "fullmatch"}, "<a>8</a>", 0.0, (1.0, 0.0)),
        ({"group": 1, "reference": "{{ item.other }}"}, "<a>9</a>", 1.0, (1.0, 1.0)),
        ({"group": 1}, "7", 0.0, (0.0, 0.0)),
    ],
)
def test_a_group_must_be_the_reference(
    settings: dict[str, Any], text: str, score: float, metrics: tuple[float, float]
) -> None:
    given = grade(Regex.model_validate({"pattern": "<a>(?P<n>.*?)</a>", **settings}), text, answer=7, other=9)
    assert given.score == score
    assert given.metrics == dict(zip(("format", "found"), metrics, strict=True))
    assert kind(given) == ("" if metrics[0] else "sample_parse_error")


def test_a_group_without_a_reference_is_the_graders_fault() -> None:
    assert kind(grade(Regex(pattern="(a)", group=1), "a")) == "invalid_variable_error"
    assert grade(Regex(pattern="(a)"), "a").score == 1.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pattern": "(a"}, "stages.0.grader: not a regular expression: missing ), unterminated"),
        ({"pattern": "a", "group": 1}, "has no group 1; its groups are [0]"),
        ({"pattern": "(?P<n>a)", "group": "m"}, "no group 'm'; its groups are [0, 1, 'n']"),
        ({"pattern": "a", "flags": ["i"]}, "ignorecase"),
        ({}, "stages.0.grader.pattern: is missing"),
    ],
)
def test_a_wrong_pattern_is_refused_when_the_recipe_is_read(settings: dict[str, Any], words: str) -> None:
    assert words in refused({"type": "regex", **settings})


def test_a_pattern_that_backtracks_without_end_times_out_as_the_completions_fault() -> None:
    pairs = [(Example("e", (), {}), Sample(text)) for text in ("a" * 40 + "!", "aaa")]
    with GraderPool(Regex(pattern="(a+)+", mode="fullmatch", time_limit=0.5), workers=1) as pool:
        slow, quick = asyncio.run(pool.grade_many(pairs))
    assert (slow.score, kind(slow), quick.score) == (0.0, "timeout", 1.0)


# numeric


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("12 apples, 5kg, $7.50, no H2O", ["12", "5", "7.5"]),
        ("1,234.5 and 1,234,567", ["1234.5", "1234567"]),
        ("(1,2) 1,2345", ["1", "2", "1", "2345"]),
        ("-3 −4 +5 48-24=24", ["-3", "-4", "5", "48", "24", "24"]),
        ("1e3 2.5E-2 6.02e+23", ["1000", "1/40", "602000000000000000000000"]),
        ("3/4, -1/3 and 1/0", ["3/4", "-1/3"]),
        ("12.5% or 50 %", ["1/8", "1/2"]),
        (".5 and 6. End", ["1/2", "6"]),
        ("v1.2.3", []),
        ("3.14.15", ["3.14"]),
        ("inf nan one", []),
        ("1e999999999 1e401 1e40", ["10000000000000000000000000000000000000000"]),
        ("9" * 401, []),
        ("x=-7", ["-7"]),
    ],
)
def test_numbers_are_read(text: str, values: list[str]) -> None:
    assert [value for _, value in numbers(text)] == [Fraction(value) for value in values]


@pytest.mark.parametrize(
    ("settings", "text", "answer", "score"),
    [
        ({}, "It is 5, no, 6.", 6, 1.0),
        ({}, "It is 6, no, 5.", 6, 0.0),
        ({}, "0.50", "1/2", 1.0),
        ({}, "50%", 0.5, 1.0),
        ({}, "1,000", "1e3", 1.0),
        ({}, "72", "She sold 48+24 = 72.\n#### 72", 1.0),
        ({}, "0.333", "1/3", 0.0),
        ({"abs_tolerance": 0.001}, "0.333", "1/3", 1.0),
        ({"abs_tolerance": 0.3}, "1.3", 1, 1.0),
        ({"abs_tolerance": 0.3}, "1.3000001", 1, 0.0),
        ({"rel_tolerance": 0.01}, "101", 100, 1.0),
        ({"rel_tolerance": 0.01}, "-101", -100, 1.0),
        ({"rel_tolerance": 0.01}, "101.01", 100, 0.0),
        ({"rel_tolerance": 0.01, "abs_tolerance": 5}, "104", 100, 1.0),
    ],
)
def test_numeric_compares_within_the_tolerance(
    settings: dict[str, Any], text: str, answer: object, score: float
) -> None:
    given = grade(Numeric.model_validate(settings), text, answer=answer)
    assert (given.score, given.metrics["format"], given.fault) == (score, 1.0, None)


def test_numeric_says_whether_the_right_number_stands_anywhere() -> None:
    assert grade(Numeric(), "6, no, 5", answer=6).metrics == {"format": 1.0, "found": 1.0}
    only = grade(Numeric(take="only"), "It is 6", answer=6)
    assert (only.score, only.metrics, kind(only)) == (0.0, {"format": 0.0, "found": 1.0}, "sample_parse_error")
    assert grade(Numeric(take="only"), " -6 \n", answer=-6).score == 1.0
    assert grade(Numeric(), "six", answer=6).metrics == {"format": 0.0, "found": 0.0}


def test_numeric_blames_a_reference_that_is_no_number() -> None:
    for item in ({"answer": "six"}, {}):
        assert kind(grade(Numeric(), "6", **item)) == "invalid_variable_error"
    assert grade(Numeric(reference="{{ item.n }}"), "6", n=6, answer="six").score == 1.0
    assert "abs_tolerance" in refused({"type": "numeric", "abs_tolerance": -1})


# json_schema

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/years"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"years": {"type": "integer", "minimum": 0}},
}
ANN = '{"name": "Ann", "age": 5}'


@pytest.mark.parametrize(
    ("text", "score", "form", "found"),
    [
        (ANN, 1, 1, 1),
        (f"  {ANN}\n", 1, 1, 1),
        (f"Here:\n```json\n{ANN}\n```\nDone.", 1, 1, 1),
        (f"```\n[1]\n```\n```json\n{ANN}\n```", 1, 1, 1),
        (f"```json\n{ANN}\n```\n```json\n[1]\n```", 0, 1, 0),
        ('{"name": "Ann", "age": -1}', 0, 1, 0),
        ('{"age": 5}', 0, 1, 0),
        ('{"name": "Ann", "size": 1}', 0, 1, 0),
        (f"It is {ANN}.", 0, 0, 1),
        ("It is [1].", 0, 0, 0),
        ('{"name": "Ann"', 0, 0, 0),
        ('{"name": "Ann", "age": NaN}', 0, 0, 0),
        ("[" * 100_000, 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_json_schema_validates(text: str, score: int, form: int, found: int) -> None:
    given = grade(JsonSchema(schema=PERSON), text)
    assert (given.score, given.metrics) == (score, {"format": form, "found": found})
    assert kind(given) == ("" if form else "sample_parse_error")


def test_fields_must_match_the_reference() -> None:
    config = JsonSchema(schema={}, match=("name", "age"))
    for text, score in (
        (ANN, 1.0),
        ('{"name": "Ann", "age": 5.0, "more": 1}', 1.0),
        ('{"name": "Bob", "age": 5}', 0.0),
        ('{"name": "Ann", "age": true}', 0.0),
        ('{"name": "Ann"}', 0.0),
        ("[1]", 0.0),
    ):
        assert grade(config, text, answer=json.loads(ANN)).score == score, text
        assert grade(config, text, answer=ANN).score == score, text
    assert "age" in grade(config, '{"name": "Ann"}', answer=ANN).explanation
    assert grade(JsonSchema(schema={}, match=("age",)), '{"age": 5}', answer=ANN).score == 1.0
    elsewhere = JsonSchema(schema={}, match=("age",), reference="{{ item.gold }}")
    assert grade(elsewhere, '{"age": 6}', answer=ANN, gold={"age": 6}).score == 1.0


def test_true_is_not_one_at_any_depth() -> None:
    config = JsonSchema(schema={}, match=("a",))
    for given, right, score in (
        ([1, {"b": True}], [1.0, {"b": True}], 1.0),
        ([1, {"b": 1}], [1, {"b": True}], 0.0),
        ([1], [1, 1], 0.0),
    ):
        assert grade(config, json.dumps({"a": given}), answer={"a": right}).score == score


@pytest.mark.parametrize("answer", ["no JSON", [1], {"name": "Ann"}, None])
def test_a_reference_without_the_fields_is_the_graders_fault(answer: object) -> None:
    assert kind(grade(JsonSchema(schema={}, match=("age",)), ANN, answer=answer)) == "invalid_variable_error"
    assert grade(JsonSchema(schema={}), ANN, answer=answer).score == 1.0


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objekt"}, "not a JSON Schema: type: 'objekt' is not"),
        ({"properties": {"a": {"minimum": "0"}}}, "properties.a.minimum"),
        ({"pattern": "("}, "not a JSON Schema: pattern"),
        ({"$ref": "https://example.com/schema.json"}, "which is not fetched"),
        ({"properties": {"a": {"items": [{"$ref": "other.json#/a"}]}}}, "properties.a.items"),
        ({"properties": {"a": {"$ref": "other.json#/a"}}}, "'other.json#/a', which it does not hold"),
        ({"$ref": "#/$defs/missing"}, 'put the definition under "$defs"'),
        ({"$ref": "file:///etc/passwd"}, "not fetched"),
    ],
)
def test_a_schema_is_looked_over_when_the_recipe_is_read(schema: dict[str, Any], words: str) -> None:
    assert words in refused({"type": "json_schema", "schema": schema})


def test_a_schema_of_an_older_draft_means_what_that_draft_says() -> None:
    """Draft 4 writes an exclusive bound as a flag; 2020-12 would refuse it."""
    old = {"$schema": "http://json-schema.org/draft-04/schema#", "minimum": 0, "exclusiveMinimum": True}
    assert [grade(JsonSchema(schema=old), text).score for text in ("0", "1")] == [0.0, 1.0]
    assert "exclusiveMinimum" in refused({"type": "json_schema", "schema": {"exclusiveMinimum": True}})


def test_a_schema_survives_being_written_and_read() -> None:
    import yaml

    read = parse(recipe({"type": "json_schema", "schema": PERSON}))
    assert parse(yaml.safe_load(dump(read))) == read
