"""Rows of a JSONL file, as a stream: every row is a plain JSON object, or an error with its place.

`json.loads` lets through what breaks later (NaN, lone surrogates, repeated keys): stopped here.
docs/data-faults.md lists what is accepted and what is refused.
"""

from __future__ import annotations

import codecs
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from sharpen.data import quick
from sharpen.errors import DataError

Record = dict[str, Any]
"""One row: a JSON object."""

MAX_DEPTH = 100
"""Lists and objects may be nested so deep."""

MAX_LINE = 64 * 2**20
"""A line may be so long, in bytes; a longer one is skipped without being held in memory."""

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


def records(path: Path, max_line: int = MAX_LINE) -> Iterator[tuple[Where, Record | DataError]]:
    """The records of a JSONL file, one per "\\n" (CRLF and a UTF-8 BOM are accepted, blank lines skipped).

    A line that is not a plain JSON object is yielded as its error, and reading goes on with the next.
    Raises DataError only when the file cannot be read.
    """
    for where, line in _lines(path, max_line):
        yield where, line if isinstance(line, DataError) else _record(line, where)


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


def _lines(path: Path, max_line: int) -> Iterator[tuple[Where, str | DataError]]:
    """The non-blank lines, decoded. Bytes are split at "\\n" alone, so U+2028 stays inside its row."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(max_line + 1):
                number += 1
                where = Where(str(path), number)
                if len(raw) > max_line and not raw.endswith(b"\n"):
                    _skip_line(file)
                    yield where, _too_long(raw, max_line, where)
                    continue
                if number == 1 and _is_utf16(raw):
                    fact = "UTF-16 or UTF-32, not UTF-8"
                    yield where, where.error(fact, value=raw[:4], remedy="Save the file as UTF-8")
                    return  # what follows cannot be read either
                text = _decode(raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw, where)
                if isinstance(text, DataError) or text.strip(" \t\r\n"):
                    yield where, text
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the file: {reason}", file=str(path), remedy="Check the path") from error


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(2**20)) and not rest.endswith(b"\n"):
        pass


def _too_long(raw: bytes, max_line: int, where: Where) -> DataError:
    remedy = f"{_ONE_A_LINE}; drop or shorten this row"
    return where.error(f"a line of more than {max_line} bytes", value=raw[:40], remedy=remedy)


def _is_utf16(start: bytes) -> bool:
    """Whether a file that starts so has a mark of UTF-16 or 32, or is ASCII written in it."""
    even, odd = (not half.strip(b"\0") for half in (start[:64:2], start[1:64:2]))
    return start.startswith(_UTF16_32) or (len(start) > 1 and even != odd)


def _decode(raw: bytes, where: Where) -> str | DataError:
    if b"\0" in raw:
        at = raw.index(b"\0")
        return where.error(f"a NUL byte at byte {at + 1} of the line", value=raw[:20], remedy="Delete it")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        around = raw[max(0, error.start - 10) : error.end + 10]
        fact = f"not valid UTF-8 at byte {error.start + 1} of the line"
        return where.error(fact, value=around, remedy="Save the file as UTF-8")


def _record(line: str, where: Where) -> Record | DataError:
    if (found := quick.record(line)) is not None:
        return found
    try:
        record = _parse(line, where)
        check(record, where)
    except DataError as error:
        return error
    return record


def _parse(line: str, where: Where) -> Record:
    def unique(pairs: list[tuple[str, Any]]) -> Record:
        found = dict(pairs)
        if len(found) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise where.error("the key occurs twice", field=twice, remedy="Keep one of them")
        return found

    try:
        value = json.loads(line, object_pairs_hook=unique)
    except RecursionError as error:
        raise where.error(f"nested more than {MAX_DEPTH} levels deep", remedy="Flatten the row") from error
    except json.JSONDecodeError as error:
        fact = f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}"
        raise where.error(fact, value=line[:80], remedy=_ONE_A_LINE) from error
    except ValueError as error:  # Python's limit on the digits of an integer
        digits = sys.get_int_max_str_digits()
        raise where.error(f"a whole number of more than {digits} digits", remedy="Write it as text") from error
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
