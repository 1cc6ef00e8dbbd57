"""`json_schema`: the completion is JSON of a schema, and named fields equal the reference's.

With `credit: f1` the score is 2·c / (n + m): of the reference's n values and the completion's m, c stand at the same
path and are equal. Values are texts, numbers, true, false, null, and empty lists and objects; in lists, the path is the
index.
"""

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
    """1 or 0, or the F1; `metrics["format"]`: the completion is JSON; `found`: right JSON stands anywhere in it.

    With the F1 also `valid`: the completion is JSON of the schema.
    """

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
        shared = self._config.credit == "f1"
        try:
            value = output_json(sample.text)
        except ValueError as error:
            found = any(self._right(inner, wanted) for inner in _inside(sample.text))
            metrics = {"format": 0.0, "found": float(found)} | ({"valid": 0.0} if shared else {})
            return completion_fault("sample_parse_error", f"not JSON: {error}", metrics)
        if shared:
            return self._shared(value, wanted)
        fault = self._fault(value, wanted)
        right = float(not fault)
        return Grade(right, {"format": 1.0, "found": right}, fault or "valid")

    def _shared(self, value: Any, wanted: Any) -> Grade:
        """The F1, and whether the schema holds."""
        invalid = self._fault(value, {})
        score, said = f1(self._within(value), wanted)
        metrics = {"format": 1.0, "found": float(score == 1 and not invalid), "valid": float(not invalid)}
        return Grade(score, metrics, f"{said}; {invalid or 'valid'}")

    def _right(self, value: Any, wanted: Any) -> bool:
        """Whether a value has full marks, and is one of the schema."""
        if self._config.credit == "f1":
            return self._shared(value, wanted).metrics["found"] == 1
        return not self._fault(value, wanted)

    def _within(self, value: Any) -> Any:
        """What of a value is compared with the reference for the F1."""
        if not self._config.match:
            return value
        fields = value if isinstance(value, Mapping) else {}
        return {name: fields[name] for name in self._config.match if name in fields}

    def _wanted(self, example: Example, sample: Sample) -> Any:
        """The fields that must match, with their values; for an F1 over all fields the whole reference."""
        if not self._config.match and self._config.credit == "all":
            return {}
        reference = parse_json(render(self._config.reference, example, sample))
        if not self._config.match:
            return reference
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


def f1(given: Any, wanted: Any) -> tuple[float, str]:
    """The F1 between the values within two JSON values, and in words what differs."""
    found, right = dict(_leaves(given)), dict(_leaves(wanted))
    wrong = [path for path, value in right.items() if path not in found or not _same(found[path], value)]
    more = [path for path in found if path not in right]
    shown = ", ".join(".".join(map(str, path)) or "the value" for path in [*wrong, *more][:5])
    said = f"{len(wrong)} of {len(right)} values are not as in the reference, {len(more)} are not in it"
    return 2 * (len(right) - len(wrong)) / (len(found) + len(right)), f"{said}: {shown}" if shown else said


def _leaves(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """The values that hold no others, with their paths. Without recursion, for a completion may nest them deep."""
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while waiting:
        path, inner = waiting.pop()
        if isinstance(inner, Mapping) and inner:
            waiting += [((*path, key), part) for key, part in inner.items()]
        elif isinstance(inner, list) and inner:
            waiting += [((*path, index), part) for index, part in enumerate(inner)]
        else:
            yield path, inner


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
