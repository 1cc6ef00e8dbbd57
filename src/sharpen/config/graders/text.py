"""Graders that read a completion: texts, numbers, patterns, JSON."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sharpen.config.graders.base import SingleGrader, Template

OTHERWISE = {"neq": "ne"}
"""Names of operations in the wild."""


class StringCheck(SingleGrader):
    """OpenAI's `string_check`: 1 when the comparison holds, else 0."""

    type: Literal["string_check"] = "string_check"
    runtime: ClassVar[str] = "sharpen.graders.string_check:StringCheckGrader"

    input: Template = "{{ sample.output_text }}"
    """What is checked."""

    reference: Template = "{{ item.answer }}"
    """What it is compared with."""

    operation: Annotated[
        Literal["eq", "ne", "like", "ilike"], BeforeValidator(lambda said: OTHERWISE.get(said, said))
    ] = "eq"
    """`eq`, `ne` (or `neq`): (not) equal; `like`, `ilike`: contains the reference, with or without case."""


class MathAnswer(SingleGrader):
    r"""1 when the last number, formula or \boxed{...} is mathematically equal to the reference."""

    type: Literal["math"] = "math"
    runtime: ClassVar[str] = "sharpen.graders.math:MathGrader"

    reference: Template = "{{ item.answer }}"
    """Where the expected answer stands in the example."""


class ReasoningGymScore(SingleGrader):
    """The verifier of the example's own reasoning-gym generator, strict: 1 for full marks, else 0."""

    type: Literal["reasoning_gym"] = "reasoning_gym"
    runtime: ClassVar[str] = "sharpen.graders.reasoning_gym:ReasoningGymGrader"

    pattern: str = ""
    r"""Regular expression that the whole completion must match, such as `-?\d+`; its first group,
    if it has one, is the answer. Empty: the whole completion is the answer."""


class Regex(SingleGrader):
    """1 when the completion matches a regular expression (and its group is the reference, if one is named)."""

    type: Literal["regex"] = "regex"
    runtime: ClassVar[str] = "sharpen.graders.regex:RegexGrader"

    pattern: str
    """Python's regular expression."""

    flags: tuple[Literal["ignorecase", "multiline", "dotall", "verbose", "ascii"], ...] = ()
    """Python's flags."""

    mode: Literal["fullmatch", "search"] = "search"
    """`fullmatch`: the whole completion, but for white space around it; `search`: the first match in it."""

    group: int | str | None = None
    """A group of the pattern, by number (0: the whole match) or name, whose text must be the reference."""

    reference: Template = "{{ item.answer }}"
    """What the group is compared with; white space around either does not count."""

    def compiled(self) -> re.Pattern[str]:
        """The pattern with its flags."""
        return re.compile(self.pattern, sum(re.RegexFlag[flag.upper()] for flag in self.flags))

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        try:
            pattern = self.compiled()
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"not a regular expression: {error} (got {self.pattern!r:.120})") from error
        groups = [*range(pattern.groups + 1), *pattern.groupindex]
        if self.group is not None and self.group not in groups:
            raise ValueError(f"the pattern has no group {self.group!r}; its groups are {groups}")
        return self


class Numeric(SingleGrader):
    """1 when the completion's number is within a tolerance of the reference's, else 0.

    Read are 1234, 1,234.5, -.5, 1.2e-3, 3/4 and 12.5% (which is 0.125); a unit may follow.
    """

    type: Literal["numeric"] = "numeric"
    runtime: ClassVar[str] = "sharpen.graders.numeric:NumericGrader"

    reference: Template = "{{ item.answer }}"
    """Where the expected number stands; in a longer text it is the last one."""

    take: Literal["last", "only"] = "last"
    """`last`: the last number of the completion; `only`: the completion must be a number and nothing else."""

    abs_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """So far from the reference is still right."""

    rel_tolerance: Annotated[float, Field(ge=0)] = 0.0
    """So far is still right, as a share of the reference; the larger of the two counts."""


with warnings.catch_warnings():  # pydantic's own `schema`, deprecated, is shadowed on purpose
    warnings.filterwarnings("ignore", 'Field name "schema"')

    class JsonSchema(SingleGrader):
        """1 when the completion, or its last ```json block, is JSON of a schema, else 0; or an F1 over its fields."""

        type: Literal["json_schema"] = "json_schema"
        runtime: ClassVar[str] = "sharpen.graders.json_schema:JsonSchemaGrader"

        schema: dict[str, Any]  # type: ignore[assignment]
        """A JSON Schema (2020-12, or the draft its `$schema` names). References stay within it."""

        match: tuple[str, ...] = ()
        """Fields whose values must equal those of the reference."""

        credit: Literal["all", "f1"] = "all"
        """`all`: 1 or 0. `f1`: the F1 between the reference's values and the completion's, each at its path, within the
        fields of `match`, or within all where it is empty; whether the schema holds is only reported, as `valid`."""

        reference: Template = "{{ item.answer }}"
        """An object (with `f1` and no `match`: any value), or its JSON text; read only for `match` and for `f1`."""

        @model_validator(mode="after")
        def _holds(self) -> Self:
            from sharpen.config.json_schema import check  # imports jsonschema

            check(self.schema)
            return self
