"""Rows of CSV, TSV and Parquet files, as a stream."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sharpen.data.read import Record, Where, check
from sharpen.errors import DataError

MAX_CELL = 64 << 20
"""A CSV cell of more characters is refused."""

BATCH = 512
"""Parquet rows held at a time."""

_HEADER = "Name the columns in the first line, such as prompt,completion"


def csv_records(path: Path, delimiter: str) -> Iterator[tuple[Where, Record | DataError]]:
    """The rows of a CSV file with a header; a row's line is its first one. Cells are text; empty ones are left out."""
    csv.field_size_limit(min(MAX_CELL, sys.maxsize))
    start = 1
    try:
        with path.open("rb") as file:
            reader = csv.reader(_decoded(file, path), delimiter=delimiter, strict=True)
            header = _header(next(reader, []), Where(str(path), 1))
            start = reader.line_num + 1
            for cells in reader:
                where, start = Where(str(path), start), reader.line_num + 1
                if cells:
                    yield where, _row(header, cells, where)
    except csv.Error as error:
        place = Where(str(path), start)
        yield place, place.error(f"not CSV: {error}", remedy='Put cells with line ends, delimiters or " in quotes')
    except DataError as error:
        yield Where(str(path), start), error


def parquet_records(path: Path) -> Iterator[tuple[Where, Record | DataError]]:
    """The rows of a Parquet file, numbered from 1, a batch at a time."""
    # Imported here: it takes half a second, and only Parquet files need it.
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            twice = [name for name, count in Counter(file.schema_arrow.names).items() if count > 1]
            if twice:
                raise DataError("a column occurs twice", file=str(path), field=twice[0], remedy="Rename one of them")
            # One thread: graders and tests fork, and a forked child has no threads.
            for batch in file.iter_batches(BATCH, use_threads=False):
                for record in batch.to_pylist():
                    number += 1
                    yield _checked(record, Where(str(path), number))
    except (pyarrow.ArrowException, OSError) as error:
        where = Where(str(path), number + 1)
        yield where, where.error(f"not a Parquet file that can be read: {error}", remedy="Write the file again")
    except DataError as error:
        yield Where(str(path), 1), error


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    """The lines as text, each decoded alone, so that a fault is told with its own line."""
    for number, raw in enumerate(file, start=1):
        try:
            yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            around = raw[max(0, error.start - 10) : error.end + 10]
            where = Where(str(path), number)
            raise where.error(
                f"not valid UTF-8: {error.reason}", value=around, remedy="Save the file as UTF-8"
            ) from error


def _header(cells: list[str], where: Where) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not names or not all(names):
        raise where.error("a column has no name", value=cells, remedy=_HEADER)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise where.error("a column occurs twice", field=twice[0], remedy="Rename one of them")
    return names


def _row(header: list[str], cells: list[str], where: Where) -> Record | DataError:
    if len(cells) != len(header):
        return where.error(
            f"{len(cells)} cells, but the header names {len(header)} columns",
            value=cells,
            remedy="Put cells that hold delimiters in quotes, and double the quotes inside them",
        )
    record: dict[str, Any] = {name: cell for name, cell in zip(header, cells, strict=True) if cell}
    return _checked(record, where)[1]


def _checked(record: Record, where: Where) -> tuple[Where, Record | DataError]:
    try:
        check(record, where)
    except DataError as error:
        return where, error
    return where, record
