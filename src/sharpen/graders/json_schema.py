"""`json_schema`: the completion is JSON of a schema, and named fields equal the reference's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema.exceptions import best_match  # type: ignore[import-untyped]

from sharpen.completion import output_json, parse_json, refuse_constant
from sharpen.config.graders import JsonSchema
from sharpen.config.json_schema import validator
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample

OPENING = re.compile(r"[{\[]")
CANDIDATES = 64
"""So many places of a completion are tried for JSON that is right."""


class JsonSchemaGrader:
    """1 or 0; `metrics["format"]`: the completion is JSON; `found`: right JSON stands anywhere in it."""

    def __init__(self, config: JsonSchema) -> None:
        self._config = config
        self._schema = validator(config.schema)

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Parse, validate, and compare the fields."""
        try:
            wanted = self._wanted(example, sample)
        except InvalidVariable as error:
            return error.grade()
        except ValueError as error:
            return grader_fault("invalid_variable_error", str(error))
        try:
            value = output_json(sample.text)
        except ValueError as error:
            found = float(any(not self._fault(inner, wanted) for inner in _inside(sample.text)))
            return completion_fault("sample_parse_error", f"not JSON: {error}", {"format": 0.0, "found": found})
        fault = self._fault(value, wanted)
        right = float(not fault)
        return Grade(right, {"format": 1.0, "found": right}, fault or "valid")

    def _wanted(self, example: Example, sample: Sample) -> dict[str, Any]:
        """The fields that must match, with their values."""
        if not self._config.match:
            return {}
        reference = parse_json(render(self._config.reference, example, sample))
        if not isinstance(reference, Mapping) or (missing := [k for k in self._config.match if k not in reference]):
            lacks = f"lacks {missing}" if isinstance(reference, Mapping) else "is no object"
            raise ValueError(f"the reference {lacks}: {reference!r:.200}")
        return {name: reference[name] for name in self._config.match}

    def _fault(self, value: Any, wanted: Mapping[str, Any]) -> str:
        """What is wrong with a value; empty when nothing is."""
        try:
            error = best_match(self._schema.iter_errors(value))
        except RecursionError:
            return "nested too deep to validate"
        if error is not None:
            return f"{'.'.join(map(str, error.absolute_path)) or 'the value'}: {error.message:.200}"
        if not wanted:
            return ""
        if not isinstance(value, Mapping):
            return "no object, so it has none of the reference's fields"
        wrong = [name for name, right in wanted.items() if name not in value or not _same(value[name], right)]
        return f"not as in the reference: {', '.join(wrong)}" if wrong else ""


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON values: 1 is 1.0, but true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _inside(text: str) -> Iterator[Any]:
    """The objects and lists that begin somewhere in a text."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    for number, opening in enumerate(OPENING.finditer(text)):
        if number == CANDIDATES:
            return
        try:
            yield decoder.raw_decode(text, opening.start())[0]
        except (ValueError, RecursionError):
            continue
