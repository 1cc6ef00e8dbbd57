"""Rows in three parts that share no prompt: to train on, to watch training by, and to test on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b
from math import sqrt
from typing import NamedTuple

from sharpen.config.data import Split
from sharpen.data import formats, split
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.project.rows import Row
from sharpen.runs.statistics import detectable

TEST_SHARE, MOST_TEST = 0.3, 300
VALIDATION_SHARE, MOST_VALIDATION = 0.1, 50
"""Shares of all rows, and the most that serve: beyond that, rows teach more than they show."""

DISAGREE = 0.5
"""The share of test rows on which two models are taken to differ, for saying what a test can show."""


class Parts(NamedTuple):
    """The rows of a project; no prompt of one part, nor one nearly like it, is in another."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def parted(rows: Sequence[Row]) -> Parts:
    """The rows in three parts, each in an order that depends on the rows alone, not on that of the file.

    Raises DataError where so many rows are alike that a part would be empty.
    """
    try:
        rest, test = _apart(rows, min(TEST_SHARE, MOST_TEST / len(rows)))
        train, validation = _apart(rest, min(VALIDATION_SHARE * len(rows), MOST_VALIDATION) / len(rest))
    except DataError as error:
        raise DataError(
            f"the {len(rows)} prompts are too much alike to be parted: nearly the same ones must stay together",
            file=rows[0].where.file,
            value=rows[0].messages[-1]["content"],
            remedy="Give more varied rows, or name the column that asks: --columns prompt=NAME",
        ) from error
    return Parts(*(sorted(part, key=_order) for part in (train, validation, test)))


def shows(tested: int) -> float:
    """The smallest difference of accuracy that so many test rows show 4 times in 5, where models differ on half.

    The variance of a paired difference of 0s and 1s is at most the share of rows on which they differ.
    """
    return detectable(sqrt(DISAGREE / tested), tested)


def _apart(rows: Sequence[Row], share: float) -> tuple[list[Row], list[Row]]:
    """The rows of the greater and of the smaller part."""
    place = {row.where: row for row in rows}

    def numbered() -> Iterator[tuple[Where, Record]]:
        return ((row.where, row.record()) for row in rows)

    sides: list[list[Row]] = []
    for side in ("train", "test"):
        wanted = Split.model_validate({"test": share, "part": side})
        sides.append(
            [place[where] for where, _ in split.part(numbered, wanted, partial(formats.prompts, purpose="sft"))]
        )
    return sides[0], sides[1]


def _order(row: Row) -> bytes:
    return blake2b(row.key + row.answer.encode(), digest_size=8).digest()
