"""Rows of a JSONL file, as a stream: every row is a plain JSON object, or an error with its place.

`json.loads` lets through what breaks later (NaN, lone surrogates, repeated keys): stopped here.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sharpen.data import quick
from sharpen.errors import DataError

Record = dict[str, Any]
"""One row: a JSON object."""

MAX_DEPTH = 100
"""Lists and objects may be nested so deep."""

_UTF16_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE starts like UTF-16-LE
_ONE_A_LINE = "Write one JSON object a line (JSONL)"


@dataclass(frozen=True, slots=True)
class Where:
    """The place of a row: its file and line (from 1)."""

    file: str
    line: int

    @property
    def id(self) -> str:
        """A name for a row that has none of its own."""
        return f"{_stem(self.file)}:{self.line}"

    def error(self, fact: str, *, field: str = "", value: object = None, remedy: str = "") -> DataError:
        """A DataError about this row."""
        return DataError(fact, file=self.file, line=self.line, field=field, value=value, remedy=remedy)


@lru_cache(maxsize=16)
def _stem(file: str) -> str:
    return Path(file).stem


def rows(path: Path) -> Iterator[tuple[Where, Record]]:
    """The records of a JSONL file, one per "\\n" (CRLF and a UTF-8 BOM are accepted, blank lines skipped).

    Raises DataError for what is not a plain JSON object, and for a file without any.
    """
    empty = True
    for where, line in _lines(path):
        record = quick.record(line)
        if record is None:
            record = _parse(line, where)
            check(record, where)
        empty = False
        yield where, record
    if empty:
        raise DataError("the file has no rows", file=str(path), remedy=_ONE_A_LINE)


def check(record: Record, where: Where) -> None:
    """Raise DataError unless `record` is plain JSON: finite numbers, valid text, bounded depth."""
    stack: list[tuple[str, object, int]] = [("", record, 1)]
    while stack:
        field, value, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise where.error(
                f"nested more than {MAX_DEPTH} levels deep", field=_outer(field), remedy="Flatten the row"
            )
        match value:
            case dict():
                for key, inner in value.items():
                    if not isinstance(key, str):
                        raise where.error("a key is not text", field=field, value=key, remedy="Use text as keys")
                    _check_text(key, field, where)
                    stack.append((f"{field}.{key}" if field else key, inner, depth + 1))
            case list():
                stack.extend((f"{field}.{index}", inner, depth + 1) for index, inner in enumerate(value))
            case str():
                _check_text(value, field, where)
            case float() if not math.isfinite(value):
                raise where.error("not a finite number", field=field, value=value, remedy="Use a finite number or null")
            case None | bool() | int() | float():
                pass
            case _:
                kind = type(value).__name__
                raise where.error(
                    f"a {kind} is not JSON", field=field, value=value, remedy="Use lists, text and numbers"
                )


def _lines(path: Path) -> Iterator[tuple[Where, str]]:
    """The non-blank lines, decoded. Bytes are split at "\\n" alone, so U+2028 stays inside its row."""
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                where = Where(str(path), number)
                text = _decode(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, where)
                if text.strip(" \t\r\n"):
                    yield where, text
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the file: {reason}", file=str(path), remedy="Check the path") from error


def _decode(raw: bytes, where: Where) -> str:
    if raw.startswith(_UTF16_32) and where.line == 1:
        raise where.error("UTF-16 or UTF-32, not UTF-8", value=raw[:4], remedy="Save the file as UTF-8")
    if b"\0" in raw:
        raise where.error(
            "a NUL byte", value=raw[:20], remedy="Save the file as UTF-8 (UTF-16 has NUL bytes), or delete it"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        around = raw[max(0, error.start - 10) : error.end + 10]
        fact = f"not valid UTF-8 at byte {error.start + 1} of the line"
        raise where.error(fact, value=around, remedy="Save the file as UTF-8") from error


def _parse(line: str, where: Where) -> Record:
    def unique(pairs: list[tuple[str, Any]]) -> Record:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise where.error("the key occurs twice", field=twice, remedy="Keep one of them")
        return found

    try:
        value = json.loads(line, object_pairs_hook=unique)
    except RecursionError as error:
        raise where.error(f"nested more than {MAX_DEPTH} levels deep", remedy="Flatten the row") from error
    except ValueError as error:  # JSONDecodeError, and Python's limit on the digits of an integer
        raise where.error(f"not JSON: {error}", value=line[:80], remedy=_ONE_A_LINE) from error
    if not isinstance(value, dict):
        raise where.error("a row is not a JSON object", value=value, remedy=_ONE_A_LINE)
    return value


def _check_text(text: str, field: str, where: Where) -> None:
    if "\0" in text:
        raise where.error("text with a NUL character", field=field, value=text, remedy="Delete the character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        fact = "text with a lone surrogate, which no tokenizer can read"
        raise where.error(fact, field=field, value=text, remedy="Write the whole character, or delete it") from error


def _outer(field: str) -> str:
    return field.split(".")[0]
