"""`response_format` in a recipe: OpenAI's shapes and ours, one normal form, and faults told when it is read."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from sharpen.config.load import dump, load, parse
from sharpen.config.recipe import Recipe
from sharpen.errors import ConfigError

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
FLAT = {"type": "json_schema", "schema": SCHEMA}


def recipe(form: Any, **more: Any) -> Recipe:
    grader = {"grader": {"type": "string_check"}}
    stage = {"type": "rft", "data": {"path": "a.jsonl"}, "response_format": form, **grader, **more}
    held = {"name": "held", "data": {"path": "b.jsonl"}, "response_format": form, **grader, **more}
    return parse({"model": "m", "stages": [stage], "evals": [held]})


def forms(read: Recipe) -> list[Any]:
    (stage,), (held,) = read.stages, read.evals
    assert stage.type == "rft"
    return [form and form.model_dump() for form in (stage.response_format, held.response_format)]


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        (None, None),
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (FLAT, {**FLAT, "strict": True}),
        ({**FLAT, "name": "one", "description": "words", "strict": None}, {**FLAT, "strict": True}),
        ({**FLAT, "strict": False}, {**FLAT, "strict": False}),
        ({"type": "json_schema", "json_schema": {"name": "one", "schema": SCHEMA}}, {**FLAT, "strict": True}),
        (
            {"type": "json_schema", "json_schema": {"name": "one", "schema": SCHEMA, "strict": False}},
            {**FLAT, "strict": False},
        ),
        ({"type": "regex", "pattern": "a|b"}, {"type": "regex", "pattern": "a|b"}),
    ],
)
def test_each_shape_has_one_normal_form_which_the_written_recipe_keeps(
    written: Any, normal: Any, tmp_path: Any
) -> None:
    read = recipe(written)
    assert forms(read) == [normal, normal]
    (tmp_path / "recipe.yaml").write_text(dump(read))
    assert load(tmp_path / "recipe.yaml") == read


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ({"type": "json_schema", "schema": {"type": "odd"}}, r"schema: not a JSON Schema: type: 'odd'"),
        ({"type": "json_schema", "schema": {"$ref": "https://a.b/c"}}, r"schema: the schema refers to"),
        ({"type": "json_schema", "json_schema": {"name": "one"}}, r"response_format\.schema: is missing"),
        ({"type": "json_schema", "schema": {"type": "string", "format": "odd"}}, r"llguidance cannot .* odd"),
        ({"type": "json_schema", "schema": {"type": "integer", "minimum": 2, "maximum": 1}}, "llguidance cannot"),
        ({"type": "regex", "pattern": "(a"}, "llguidance cannot .*unclosed group"),
        ({"type": "regex", "pattern": "a(?=b)"}, "llguidance cannot .*look-around"),
        ({"type": "regex"}, r"response_format\.pattern: is missing"),
        ({"type": "grammar"}, r"unknown type `grammar`; the types are text, json_object, json_schema, regex"),
    ],
)
def test_a_form_that_cannot_be_held_to_is_told_when_the_recipe_is_read(written: Any, fault: str) -> None:
    with pytest.raises(ConfigError, match=rf"stages\.0\.response_format[^\n]*{fault}" if "\\." not in fault else fault):
        recipe(written)


def test_no_form_holds_in_an_environment_but_text_says_nothing() -> None:
    env = {"type": "tools"}
    assert forms(recipe({"type": "text"}, env=env)) == [{"type": "text"}] * 2
    with pytest.raises(ConfigError, match=r"(?s)stages\.0.*environment.*evals\.0.*environment"):
        recipe({"type": "json_object"}, env=env)


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("llguidance"):
            raise ImportError(name)
        return original(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'sharpen\[constrained\]'"):
        recipe({"type": "json_object"})
    assert forms(recipe({"type": "text"})) == [{"type": "text"}] * 2
