"""A look at someone's file: its rows, what stands in each column, and which columns ask and answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.data import files, tables
from sharpen.data.formats.columns import SYNONYMS
from sharpen.data.read import Record, Where
from sharpen.errors import ConfigError, DataError

MOST_ROWS = 20_000
"""Rows read at most: more than can be trained on in minutes."""

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

ASKS = (*SYNONYMS["prompt"], *SYNONYMS["text"], "message", "ticket", "email", "review", "sentence", "comment", "post")
ANSWERS = (
    *SYNONYMS["completion"],
    "category",
    "class",
    "intent",
    "sentiment",
    "tag",
    "topic",
    "json",
    "code",
    "expected",
)
TESTS = ("tests", "test_list", "test", "unit_tests")
"""Names of columns, the most usual first."""

FEW_VALUES, SHORT = 30, 60
"""A column of at most so many different values, of at most so many characters, may hold labels."""

LONGEST_NAME = 40
"""A longer name of a column is a row's cell: the file has no header."""


@dataclass(frozen=True, slots=True)
class Column:
    """What stands in a column."""

    name: str
    values: tuple[str, ...]  # of the rows where it is not empty

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(set(self.values))

    @property
    def length(self) -> float:
        """The mean length in characters."""
        return sum(map(len, self.values)) / max(1, len(self.values))

    def labels(self) -> bool:
        """Whether it may hold labels: few different values, all short, each in five rows on average."""
        several = 2 <= self.distinct <= FEW_VALUES and self.distinct * 5 <= len(self.values)
        return several and max(map(len, self.values)) <= SHORT

    def texts(self) -> bool:
        """Whether it may hold prompts: words, and seldom the same ones."""
        worded = sum(any(sign.isalpha() for sign in value) for value in self.values)
        return worded * 2 > len(self.values) and self.distinct * 2 > len(self.values)


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of a file with their places, its columns, and what is to be said of it."""

    path: Path
    rows: tuple[tuple[Where, Record], ...]
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """The column of this name. Raises ConfigError with the names there are."""
        for column in self.columns:
            if column.name == name:
                return column
        names = ", ".join(column.name for column in self.columns)
        raise ConfigError(f"{self.path} has no such column", path="--columns", value=name, remedy=f"It has {names}")


class Guess(NamedTuple):
    """A column, and why it was taken."""

    column: str
    why: str


def read(path: Path) -> Table:
    """The rows of a CSV, TSV, JSONL, JSON or Parquet file. Raises DataError at the first fault.

    A table whose delimiter is not its name's (`;` in a .csv) is read by the one that its header has.
    """
    delimiter = _delimiter(path)
    notes = []
    if delimiter:
        notes.append(f"its cells stand between {DELIMITERS[delimiter]}, and are read so")
        found: Iterator[tuple[Where, Record]] = _by(path, delimiter)
    else:
        found = files.rows(path)
    rows = tuple(islice(found, MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        rows = rows[:MOST_ROWS]
        notes.append(f"only its first {MOST_ROWS:,} rows are used")
    table = Table(path, rows, _columns(rows), tuple(notes))
    if path.suffix.lower() in (".csv", ".tsv"):
        _require_header(table)
    return table


def text(value: Any) -> str:
    """A cell as text, without white space around it; lists and objects as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    return json.dumps(value, ensure_ascii=False)


def guess_answer(table: Table, taken: Collection[str] = ()) -> Guess:
    """The column that holds the answers: by its name, or else by its few short values. Raises DataError."""
    if named := _named(table, ("completion", *ANSWERS), taken):
        return Guess(named, "by its name")
    free = [column for column in table.columns if column.name not in taken and column.values]
    labels = [column for column in free if column.labels()]
    if len(labels) == 1:
        return Guess(labels[0].name, f"{labels[0].distinct} different short values")
    if not labels and len(free) == 2 - len(set(taken)):  # two columns, or the one that is left
        return Guess(free[-1].name, "the last column")
    raise _cannot_tell("completion", table)


def guess_prompt(table: Table, taken: Collection[str] = ()) -> Guess:
    """The column that asks: by its name, or else the one of the longest texts. Raises DataError."""
    if named := _named(table, ("prompt", *ASKS), taken):
        return Guess(named, "by its name")
    texts = [column for column in table.columns if column.name not in taken and column.values and column.texts()]
    if texts:
        longest = max(texts, key=lambda column: column.length)
        return Guess(longest.name, "the longest texts" if len(texts) > 1 else "the only column of texts")
    raise _cannot_tell("prompt", table)


def guess_tests(table: Table) -> str:
    """The column of unit tests, or an empty string."""
    return _named(table, TESTS, ()) or ""


def _delimiter(path: Path) -> str:
    """The delimiter of a table's header, where its file's name promises another one; else nothing."""
    usual = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if usual is None or not path.is_file():
        return ""
    if not path.stat().st_size:
        raise DataError("the file is empty", file=str(path), remedy="Give it the names of its columns, and rows")
    with path.open("rb") as file:
        header = re.sub(r'"[^"]*"', "", file.readline(65536).decode("utf-8", errors="replace"))
    others = {sign: header.count(sign) for sign in DELIMITERS if sign != usual}
    best = max(others, key=lambda sign: others[sign])
    return best if usual not in header and others[best] else ""


def _by(path: Path, delimiter: str) -> Iterator[tuple[Where, Record]]:
    empty = True
    for where, record in tables.csv_records(path, delimiter):
        if isinstance(record, DataError):
            raise record
        empty = False
        yield where, record
    if empty:
        raise DataError("the file has no rows", file=str(path), remedy="Give it at least one")


def _columns(rows: Sequence[tuple[Where, Record]]) -> tuple[Column, ...]:
    names = dict.fromkeys(name for _, record in rows for name in record)
    cells: Mapping[str, list[str]] = {name: [] for name in names}
    for _, record in rows:
        for name, value in record.items():
            if shown := text(value):
                cells[name].append(shown)
    return tuple(Column(name, tuple(values)) for name, values in cells.items())


def _require_header(table: Table) -> None:
    """Raise DataError where the first line is a row and not the columns' names."""
    for column in table.columns:
        name = column.name
        if len(name) > LONGEST_NAME or name[-1] in ".?!" or (column.labels() and name in column.values):
            raise DataError(
                "the first line looks like a row, not like the names of columns",
                file=str(table.path),
                line=1,
                value=name,
                remedy="Put the names first, such as prompt,completion",
            )


def _named(table: Table, words: Sequence[str], taken: Collection[str]) -> str | None:
    """The free column that is called so, or has the word in its name; the first of the words wins."""
    free = [column.name for column in table.columns if column.name not in taken and column.values]
    whole = {name.casefold(): name for name in reversed(free)}
    part = {word: name for name in reversed(free) for word in re.split(r"[^a-z]+", name.casefold())}
    return next((found[word] for found in (whole, part) for word in words if word in found), None)


def _cannot_tell(role: str, table: Table) -> DataError:
    names = [column.name for column in table.columns]
    if len(names) == 1:
        what = "there is one column only; training needs a prompt and its answer"
        return DataError(what, file=str(table.path), value=names, remedy="Add the other column")
    which = "asks" if role == "prompt" else "answers"
    return DataError(
        f"which column {which} cannot be told",
        file=str(table.path),
        value=names,
        remedy="Say it: --columns prompt=NAME,completion=NAME",
    )
