"""Graders of a completion's form (length, tags, language, repetition), and of the query in it."""

from __future__ import annotations

import warnings
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from sharpen.config.graders.base import SingleGrader, Template

Tag = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
"""A tag's name, without its brackets."""


class Length(SingleGrader):
    """1 when the completion's length lies within bounds, else 0, or less the farther it lies outside."""

    type: Literal["length"] = "length"
    runtime: ClassVar[str] = "sharpen.graders.length:LengthGrader"

    unit: Literal["characters", "words", "lines", "sentences"] = "words"
    """What is counted. Words stand between white space; lines with nothing in them do not count; sentences end with
    `.`, `!`, `?` or `…` before white space, or with `。`, `！` or `？`."""

    min: Annotated[int, Field(ge=0)] = 0
    """The least that scores 1."""

    max: Annotated[int, Field(ge=0)] | None = None
    """The most that scores 1; None: there is no bound."""

    falloff: Annotated[float, Field(ge=0)] = 0.0
    """So far outside, in units, the score has fallen to 0, along a line; 0: it is 0 at once."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.max is None and not self.min:
            raise ValueError("give `min`, `max` or both: without them every length scores 1")
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max is less than min ({self.max} < {self.min})")
        return self


class Format(SingleGrader):
    """1 when the completion consists of tags in order, `<think>…</think><answer>…</answer>`, else 0."""

    type: Literal["format"] = "format"
    runtime: ClassVar[str] = "sharpen.graders.format:FormatGrader"

    tags: Annotated[tuple[Tag, ...], Field(min_length=1)] = ("think", "answer")
    """The tags in their order; each is opened and closed once, and none lies within another."""

    strict: bool = True
    """Outside the tags there is nothing but white space."""

    answer_tag: str = ""
    """One of the tags, whose text must be the reference too; empty: the form alone counts."""

    reference: Template = "{{ item.answer }}"
    """What the text in `answer_tag` is compared with; white space around either does not count."""

    @model_validator(mode="after")
    def _names_its_tags(self) -> Self:
        if len(set(self.tags)) < len(self.tags):
            raise ValueError(f"a tag stands twice in {list(self.tags)}; each may occur once")
        if self.answer_tag and self.answer_tag not in self.tags:
            raise ValueError(f"answer_tag is none of the tags {list(self.tags)} (got {self.answer_tag!r})")
        return self


class Language(SingleGrader):
    """The share of the completion's letters that stand in passages of one language. Extra `language`."""

    type: Literal["language"] = "language"
    runtime: ClassVar[str] = "sharpen.graders.language:LanguageGrader"

    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    """The language's ISO 639-1 code, such as `de`."""


class Repetition(SingleGrader):
    """One minus the share of the completion's n-grams that repeat earlier ones (arXiv:2502.03373, appendix C.2)."""

    type: Literal["repetition"] = "repetition"
    runtime: ClassVar[str] = "sharpen.graders.repetition:RepetitionGrader"

    ngram_size: Annotated[int, Field(ge=1)] = 3
    """So many units are an n-gram."""

    unit: Literal["words", "characters"] = "words"
    """What an n-gram consists of: words between white space, or characters (for languages without spaces)."""

    max_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """So large a share still scores 1; above it the score falls along a line, to 0 where all repeats."""


with warnings.catch_warnings():  # pydantic's own `schema`, deprecated, is shadowed on purpose
    warnings.filterwarnings("ignore", 'Field name "schema"')

    class Sql(SingleGrader):
        """1 when the completion's query finds in SQLite databases what the reference query finds, else 0.

        The query is the last ```sql block of the completion, or else all of it: one SELECT.
        """

        type: Literal["sql"] = "sql"
        runtime: ClassVar[str] = "sharpen.graders.sql:SqlGrader"

        schema: Template = "{{ item.schema }}"  # type: ignore[assignment]
        """The script that makes the database: tables and rows. A list of scripts makes several databases, and the two
        queries must agree on each: on a single one, a wrong query may be right by chance."""

        reference: Template = "{{ item.answer }}"
        """The query that is right."""

        ordered: Literal["auto"] | bool = "auto"
        """Whether the order of rows counts; `auto`: where the reference itself ends with ORDER BY."""

        rel_tolerance: Annotated[float, Field(ge=0)] = 1e-6
        """Numbers with a fraction are equal up to so large a share of them, or 1e-9."""
