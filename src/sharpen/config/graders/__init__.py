"""The graders a recipe can name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from sharpen.config import formula
from sharpen.config.graders.adapters import TRL, BatchEndpoint, RewardModel, Rubric
from sharpen.config.graders.base import LARGEST_SOURCE, GraderConfig, SingleGrader, Template, parsed
from sharpen.config.graders.field import Format, Language, Length, Repetition, Sql
from sharpen.config.graders.programs import CodeTests, Plugin, Python
from sharpen.config.graders.remote import Endpoint, LabelModel, ScoreModel
from sharpen.config.graders.similarity import TextSimilarity
from sharpen.config.graders.text import JsonSchema, MathAnswer, Numeric, ReasoningGymScore, Regex, StringCheck

__all__ = [
    "LARGEST_SOURCE",
    "TRL",
    "BatchEndpoint",
    "CodeTests",
    "Endpoint",
    "Format",
    "Grader",
    "GraderConfig",
    "JsonSchema",
    "LabelModel",
    "Language",
    "Length",
    "MathAnswer",
    "Multi",
    "Numeric",
    "Part",
    "Plugin",
    "Python",
    "ReasoningGymScore",
    "Regex",
    "Repetition",
    "RewardModel",
    "Rubric",
    "ScoreModel",
    "SingleGrader",
    "Sql",
    "StringCheck",
    "Template",
    "TextSimilarity",
    "parsed",
    "parts",
]

Single = (
    StringCheck
    | MathAnswer
    | ReasoningGymScore
    | Regex
    | Numeric
    | JsonSchema
    | TextSimilarity
    | Sql
    | Length
    | Format
    | Language
    | Repetition
    | Python
    | CodeTests
    | Plugin
    | ScoreModel
    | LabelModel
    | Endpoint
    | TRL
    | Rubric
    | RewardModel
    | BatchEndpoint
)
"""Every grader but `multi`."""

Part = Annotated[Single, Field(discriminator="type")]
"""A grader that may stand alone, or in a `multi`."""


def _by_name(given: Any) -> Any:
    """The three shapes that OpenAI's API and its clients write: a mapping, a list, and a single grader."""
    if isinstance(given, Mapping) and isinstance(given.get("type"), str):
        given = [given]
    if not isinstance(given, list | tuple) or not all(isinstance(part, Mapping) for part in given):
        return given
    names = [str(part.get("name") or part.get("type", "")) for part in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two graders are named {twice[0]!r}; give each its own `name`")
    return dict(zip(names, given, strict=True))


class Multi(GraderConfig):
    """OpenAI's `multi`: a formula over the scores of several graders."""

    type: Literal["multi"] = "multi"

    graders: Annotated[dict[str, Part], Field(min_length=1), BeforeValidator(_by_name)]
    """The graders by the names that the formula and the metrics use; each has its own time limit. A list of graders
    with names, or a single one, is read too, as OpenAI's API has them."""

    calculate_output: str
    """The score: numbers, the graders' names, `+ - * / ^`, parentheses, min max abs floor ceil exp sqrt log."""

    def formula(self) -> formula.Formula:
        """`calculate_output`, ready to be computed."""
        return formula.parse(self.calculate_output, self.graders)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        taken = ("score", self.name or self.type, *formula.FUNCTIONS)
        for name in self.graders:
            if not formula.NAME.fullmatch(name):
                raise ValueError(f"a grader's name is letters, digits and _, as the formula needs it (got {name!r})")
            if name in taken:
                raise ValueError(f"the name {name!r} is taken; call the grader something else")
        try:
            self.formula()
        except formula.FormulaError as error:
            raise ValueError(f"calculate_output, {error}") from error
        return self


def parts(config: SingleGrader | Multi) -> dict[str, SingleGrader]:
    """The single graders that a grader consists of, by the names under which they report."""
    own = config.name or getattr(config, "type", type(config).__name__)
    return dict(config.graders) if isinstance(config, Multi) else {own: config}


Grader = Annotated[Single | Multi, Field(discriminator="type")]
"""Any grader."""
