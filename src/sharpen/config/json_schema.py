"""A JSON Schema looked over before it is used: well-formed, and complete in itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError, best_match  # type: ignore[import-untyped]
from jsonschema.protocols import Validator  # type: ignore[import-untyped]
from jsonschema.validators import validator_for  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import specification_with

Schema = Mapping[str, Any]


def check(schema: Schema) -> None:
    """Raises ValueError where a schema is none, or refers to what it does not hold: nothing is ever fetched."""
    draft = validator_for(schema, default=Draft202012Validator)
    try:
        error = best_match(draft(draft.META_SCHEMA, format_checker=draft.FORMAT_CHECKER).iter_errors(schema))
    except RecursionError:
        raise ValueError("the schema is nested too deep") from None
    if error is not None:
        raise ValueError(f"not a JSON Schema: {_place(error)}: {error.message:.200}")
    specification = specification_with(draft.META_SCHEMA["$schema"])
    resolver = Registry().resolver_with_root(specification.create_resource(schema))
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except Unresolvable as missing:
            raise ValueError(
                f"the schema refers to {reference!r:.120}, which it does not hold and which is not fetched; "
                'put the definition under "$defs" and refer to "#/$defs/NAME"'
            ) from missing


def validator(schema: Schema) -> Validator:
    """What validates values; an empty registry keeps it from fetching anything."""
    return validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())


def _place(error: SchemaError | Any) -> str:
    return ".".join(map(str, error.absolute_path)) or "the schema"


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in ("$ref", "$dynamicRef") and isinstance(inner, str):
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
