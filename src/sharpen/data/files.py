"""Any file of rows: JSONL, a JSON array, CSV, TSV or Parquet, told by its first bytes and its name."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

from sharpen.data import array, read, tables
from sharpen.data.read import Record, Where
from sharpen.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""The names of files of rows."""

_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip (or a spreadsheet)", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2"}


def rows(path: Path) -> Iterator[tuple[Where, Record]]:
    """The records of a file with their places. Raises DataError at the first fault, and for a file without rows."""
    for where, record in records(path):
        if isinstance(record, DataError):
            raise record
        yield where, record


def records(path: Path) -> Iterator[tuple[Where, Record | DataError]]:
    """The records of a file, or the fault of each, with their places; a bad row does not end it.

    A place's line is the line in JSONL and CSV, and the row's number in JSON arrays and Parquet. A fault of the
    whole file (packed, without rows) has no line. Raises DataError only when the file cannot be read.
    """
    empty = True
    for found in _contained(path):
        empty = False
        yield found
    if empty:
        yield Where(str(path), 1), DataError("the file has no rows", file=str(path), remedy="Give it at least one")


def _contained(path: Path) -> Iterable[tuple[Where, Record | DataError]]:
    """What the file's container holds."""
    start = _start(path)
    for mark, name in _PACKED.items():
        if start.startswith(mark):
            remedy = "Unpack it, or save it as JSONL, CSV or Parquet"
            return [(Where(str(path), 1), DataError(f"a {name} file", file=str(path), remedy=remedy))]
    suffix = path.suffix.lower()
    if start.startswith(b"PAR1") or suffix == ".parquet":
        return tables.parquet_records(path)
    if suffix in (".csv", ".tsv"):
        return tables.csv_records(path, "," if suffix == ".csv" else "\t")
    if start.removeprefix(codecs.BOM_UTF8).lstrip(b" \t\r\n").startswith(b"["):
        return array.records(path)
    return read.records(path)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the file: {reason}", file=str(path), remedy="Check the path") from error
