"""The form that completions are held to while they are sampled: `response_format`, as OpenAI's API writes it, or a
pattern."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from sharpen.config.base import Config

LAYOUT: Any = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""JSON on one line, with at most one blank after `,` and `:`: without a bound, a model may write blanks up to its
limit. A schema's own `x-guidance` wins."""

LABELS = ("name", "description")
"""What OpenAI's API calls a schema; no model here is shown it."""


class Form(Config):
    """What all forms have that mask tokens."""

    def grammar(self) -> str:
        """The form in llguidance's words."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            from llguidance import LLMatcher  # an extra, and nobody else's
        except ImportError:
            raise ValueError(
                "response_format needs llguidance, which is not installed: pip install 'sharpen[constrained]'"
            ) from None
        wrong, said = LLMatcher.validate_grammar_with_warnings(self.grammar())
        if wrong:
            raise ValueError(f"llguidance cannot hold completions to this: {' '.join(' '.join(said).split()):.400}")
        return self


class TextFormat(Config):
    """Any text, as without a `response_format`."""

    type: Literal["text"] = "text"

    def grammar(self) -> None:
        """None: nothing is masked."""


class JsonObjectFormat(Form):
    """Any JSON object."""

    type: Literal["json_object"] = "json_object"

    def grammar(self) -> str:
        """Of the schema that all objects have."""
        return _json({"type": "object"})


class RegexFormat(Form):
    """Text that a regular expression matches from its first to its last character."""

    type: Literal["regex"] = "regex"

    pattern: str
    """Rust's regular expression: no look-around, no references back, and no need of `^` and `$`."""

    def grammar(self) -> str:
        """Of the pattern."""
        from llguidance import LLMatcher

        return str(LLMatcher.grammar_from_regex(self.pattern))


def _checked(schema: dict[str, Any]) -> dict[str, Any]:
    from sharpen.config.json_schema import check  # imports jsonschema

    check(schema)
    return schema


with warnings.catch_warnings():  # pydantic's own `schema`, deprecated, is shadowed on purpose
    warnings.filterwarnings("ignore", 'Field name "schema"')

    class JsonSchemaFormat(Form):
        """JSON of a schema."""

        type: Literal["json_schema"] = "json_schema"

        schema: Annotated[dict[str, Any], AfterValidator(_checked)]  # type: ignore[assignment]
        """A JSON Schema (2020-12, or the draft its `$schema` names). References stay within it; properties come in
        the order in which it has them."""

        strict: bool = True
        """Whether the schema holds; if not, any JSON object does."""

        def grammar(self) -> str:
            """Of the schema."""
            return _json(self.schema if self.strict else {"type": "object"})


def _json(schema: Mapping[str, Any]) -> str:
    from llguidance import LLMatcher

    return str(LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=LAYOUT))


def _flat(value: Any) -> Any:
    """OpenAI's nested shape, `{type: json_schema, json_schema: {...}}`, as the flat one, without the labels."""
    if not isinstance(value, Mapping) or value.get("type") != "json_schema":
        return value
    flat = dict(value)
    if isinstance(nested := flat.get("json_schema"), Mapping):
        flat = {**flat, **nested}
        del flat["json_schema"]
    if flat.get("strict", True) is None:  # as OpenAI's API gives back what was left out
        del flat["strict"]
    return {key: inner for key, inner in flat.items() if key not in LABELS}


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat, Field(discriminator="type"), BeforeValidator(_flat)
]
"""Any form."""


def check_env(form: TextFormat | Form | None, env: object | None) -> None:
    """No form holds in an environment. Raises ValueError, for a config's validator."""
    if env is not None and isinstance(form, Form):
        raise ValueError(
            "response_format does not hold in an environment, whose turns differ in form; leave one of the two out"
        )
