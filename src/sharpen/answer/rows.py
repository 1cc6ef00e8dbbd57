"""The rows to answer: whatever their container and shape, as chats; what stands beside the question is kept."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sharpen.config.data import FileData
from sharpen.data import files, source
from sharpen.data.formats import place, row_id
from sharpen.data.formats.columns import SYNONYMS
from sharpen.data.formats.messages import bare, check_order
from sharpen.data.formats.shapes import SHAPES, recognise
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.types import Example

TABLES = {".csv": ",", ".tsv": "\t"}
"""Containers whose rows all have the same columns, by suffix, and what parts their cells."""


class Row(NamedTuple):
    """A row as it stands in its file, and the question in it."""

    record: Record
    example: Example


def rows(
    path: str, columns: Mapping[str, str] | None = None, limit: int | None = None, system: str = ""
) -> Iterator[Row]:
    """The first `limit` rows of a file or hub dataset, or all; `columns` maps our names to the file's.

    `system` begins the chats that have no system turn of their own. An answer that a row has already is no part of
    its question. Raises DataError for the first row that cannot be read or asks nothing.
    """
    found = (row for file in source.paths(FileData(path=path), Path()) for row in _found(file))
    for where, record, read in islice(found, limit):
        yield Row(record, _question(read, where, columns or {}, system))


def _found(path: Path) -> Iterator[tuple[Where, Record, Record]]:
    """The rows of one file, whole and as they are read: empty cells of a table stay empty text, and say nothing."""
    names = _header(path)
    for where, record in files.rows(path):
        yield where, {**dict.fromkeys(names, ""), **record}, {**dict.fromkeys(names), **record}


def _header(path: Path) -> list[str]:
    if path.suffix.lower() not in TABLES:
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [name.strip() for name in next(csv.reader(file, delimiter=TABLES[path.suffix.lower()]), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []  # reading the rows says what is wrong, and where


def _question(record: Record, where: Where, columns: Mapping[str, str], system: str) -> Example:
    named = _renamed(record, columns, where)
    try:
        shape = recognise(named, "rft", where)
    except DataError as error:
        known = any(shape.keys <= named.keys() for shape in SHAPES if "rft" in shape.purposes)
        raise error if known else _unasked(named, where) from error
    parts = shape.convert(named, where, True)
    turns = parts.messages[:-1] if parts.messages[-1]["role"] == "assistant" else parts.messages
    if not turns or turns[-1]["role"] == "system":
        raise where.error("nothing is asked", field=parts.field, remedy="Let a user's turn stand before the answer")
    check_order(turns, parts.first, (parts.asked, parts.field), where)
    if system and turns[0]["role"] != "system":
        turns = ({"role": "system", "content": system}, *turns)
    item = {name: value for name, value in named.items() if name not in shape.reads}
    return Example(row_id(record, where), bare(turns), item, parts.tools, place=place(where))


def _renamed(record: Record, columns: Mapping[str, str], where: Where) -> Record:
    """The record with our names for its columns; a column that has such a name and is not meant is left out."""
    for ours, theirs in columns.items():
        if theirs not in record:
            raise where.error(
                f"there is no column {theirs!r}; the row has {sorted(record)}",
                field=theirs,
                remedy=f"Correct --columns {ours}={theirs}",
            )
    kept = {name: value for name, value in record.items() if name not in {*columns, *columns.values()}}
    return kept | {ours: record[theirs] for ours, theirs in columns.items()}


def _unasked(record: Record, where: Where) -> DataError:
    """The error of a row in which nothing says what is asked."""
    names = sorted(record)
    mark = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
    if mark:
        return where.error(
            f"one column, {names[0]!r}: its cells seem to be parted by {mark!r}",
            remedy="Save the file with commas, or parted by tabs and named .tsv",
        )
    fold = {name.casefold(): name for name in names}
    guess = next((fold[word] for word in SYNONYMS["prompt"] if word in fold), "NAME")
    return where.error(
        f"nothing says what is asked; the row has {names}",
        remedy=f"Say which column it is: --columns prompt={guess}. Otherwise rows have `prompt`, `messages` or another "
        "shape of docs/data.md",
    )
