"""A look at all rows before the first is answered, so that no fault of theirs shows after hours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sharpen.answer.rows import Row
from sharpen.errors import DataError
from sharpen.rollout.generate import Answerer

REFERENCES = ("answer", "completion", "output", "response", "label", "target")
"""Fields that usually hold what a row's answer should be."""

THOUGHTS = "reasoning_content"
"""The field that a reasoning model's thoughts are put into."""


class Survey(NamedTuple):
    """How many rows there are, their fields, and the one of those that holds answers."""

    total: int
    fields: list[str]
    reference: str


def look(found: Iterator[Row], answer_column: str) -> Survey:
    """Read all rows. Raises DataError for one that has the answer's field already."""
    total = 0
    fields: dict[str, None] = {}
    known: set[str] = set()
    for total, row in enumerate(found, start=1):
        if answer_column in row.record:
            raise DataError(
                "the row has a field of this name already, and the answer would overwrite it",
                file=row.example.place,
                field=answer_column,
                value=row.record[answer_column],
                remedy="Name another one: --answer-column NAME",
            )
        fields |= dict.fromkeys(row.record)
        items = {name for name, value in row.example.item.items() if value not in (None, "")}
        known = known & items if total > 1 else items
    return Survey(total, list(fields), next((name for name in REFERENCES if name in known), ""))


def added(survey: Survey, path: str, answer_column: str, answerer: Answerer) -> list[str]:
    """All fields of the output. Raises DataError where the model has thoughts, and the rows a field of that name."""
    if answerer.renderer.thinking is None:
        return [*survey.fields, answer_column]
    if THOUGHTS in (*survey.fields, answer_column):
        raise DataError(
            "there is a field of this name already, and the model's thoughts would overwrite it",
            file=path,
            field=THOUGHTS,
            remedy="Give it another name",
        )
    return [*survey.fields, THOUGHTS, answer_column]


def measure(found: Iterator[Row], answerer: Answerer, max_tokens: int) -> None:
    """Raise DataError where a row and its answer do not fit into the model's context, or its template refuses a row."""
    context = answerer.context
    lengths = ((row.example.place, len(prompt(row, answerer))) for row in found)
    too_long = [(place, length) for place, length in lengths if context and length + max_tokens > context]
    if not too_long:
        return
    place, length = too_long[0]
    others = f", and so it is with {len(too_long) - 1:,} rows more" if too_long[1:] else ""
    raise DataError(
        f"the prompt of {length:,} tokens and an answer of {max_tokens:,} (--max-tokens) are longer than the model's "
        f"context of {context:,}{others}",
        file=place,
        remedy="Shorten or drop the row, or lower --max-tokens",
    )


def prompt(row: Row, answerer: Answerer) -> tuple[int, ...]:
    """The tokens after which the answer is made. Raises DataError, which says where the row stands."""
    try:
        return answerer.renderer.example(row.example)
    except DataError as error:
        if error.file:
            raise
        raise DataError(error.fact, file=row.example.place, value=error.value, remedy=error.remedy) from error
