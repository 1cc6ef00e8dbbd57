"""Rows of a JSON array, one element at a time: a file of any size is read through a small window."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sharpen.data.read import Record, Where, check
from sharpen.errors import DataError

CHUNK = 1 << 18
"""Bytes read at a time."""

MAX_ROW = 64 << 20
"""A row of more characters is refused."""

_SPACE = re.compile(r"[ \t\r\n]*")
_REMEDY = "Write [{...}, {...}], or one JSON object a line (JSONL)"


def records(path: Path) -> Iterator[tuple[Where, Record | DataError]]:
    """The objects of a JSON array, each with its number from 1; the rest of a broken array is one fault."""
    number = 0
    try:
        with path.open("rb") as file:
            window = _Window(file, path)
            for number, value in enumerate(window.elements(), start=1):
                where = Where(str(path), number)
                try:
                    yield where, _record(value, where)
                except DataError as error:
                    yield where, error
    except DataError as error:
        yield Where(str(path), number + 1), error


def _record(value: Any, where: Where) -> Record:
    if not isinstance(value, dict):
        raise where.error("a row is not a JSON object", value=value, remedy=_REMEDY)
    check(value, where)
    return value


class _Window:
    """The part of the text that is being parsed."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._at = 0
        self._ended = False
        self._number = 1
        self._parse = json.JSONDecoder(object_pairs_hook=self._unique).raw_decode

    def elements(self) -> Iterator[Any]:
        """The elements of the array. Raises DataError where it breaks off."""
        self._expect("[")
        if self._peek() == "]":
            self._at += 1
        else:
            while True:
                yield self._element()
                self._number += 1
                if self._expect(",]") == "]":
                    break
        if self._peek():
            raise self._error("text after the end of the array", self._text[self._at : self._at + 80])

    def _element(self) -> Any:
        self._peek()
        while True:
            try:
                value, self._at = self._parse(self._text, self._at)
                return value
            except RecursionError as error:
                raise self._error("nested too deep") from error
            except json.JSONDecodeError as error:
                unfinished = error.pos >= len(self._text) - 16 or error.msg.startswith("Unterminated string")
                if len(self._text) - self._at > MAX_ROW:
                    raise self._error(f"a row of more than {MAX_ROW} characters, or not JSON: {error.msg}") from error
                if not (unfinished and self._more()):
                    around = self._text[max(self._at, error.pos - 20) : error.pos + 40]
                    raise self._error(f"not JSON: {error.msg}", around) from error
            except ValueError as error:  # Python's limit on the digits of an integer
                raise self._error(f"not JSON: {error}") from error

    def _expect(self, marks: str) -> str:
        found = self._peek()
        if not found or found not in marks:
            fact = "the array breaks off" if not found else f"not JSON: {' or '.join(marks)} is missing"
            raise self._error(fact, self._text[self._at : self._at + 80])
        self._at += 1
        return found

    def _peek(self) -> str:
        """The next character that is no white space, empty at the end of the file."""
        while True:
            blank = _SPACE.match(self._text, self._at)
            self._at = blank.end() if blank else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, at least as much as the window holds, so that a long row is parsed few times."""
        if self._ended:
            return False
        left = self._text[self._at :]
        raw = self._file.read(max(CHUNK, len(left)))
        self._ended = not raw
        if b"\0" in raw:
            raise self._error("a NUL byte")
        try:
            self._text, self._at = left + self._decode.decode(raw, final=self._ended), 0
        except UnicodeDecodeError as error:
            raise self._error(f"not valid UTF-8: {error.reason}", raw[max(0, error.start - 10) : error.end]) from error
        return not self._ended

    def _unique(self, pairs: list[tuple[str, Any]]) -> Record:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise self._error("the key occurs twice", field=twice, remedy="Keep one of them")
        return found

    def _error(self, fact: str, value: object = None, field: str = "", remedy: str = _REMEDY) -> DataError:
        return DataError(fact, file=str(self._path), line=self._number, field=field, value=value, remedy=remedy)
