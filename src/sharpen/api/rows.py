"""Rows from Python, in any of the forms in which people hold them, as plain JSON values.

Neither pandas nor polars nor datasets is imported: a table is known by what it can do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, time
from pathlib import Path
from typing import Any, Protocol

from sharpen.config.base import Config
from sharpen.data.formats.shapes import SHAPES
from sharpen.data.read import Where
from sharpen.errors import DataError


class Frame(Protocol):
    """A DataFrame of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The columns' names."""
        ...


class Dataset(Protocol):
    """A `datasets.Dataset`, or a Table of pyarrow."""

    @property
    def column_names(self) -> Any:
        """The columns' names."""
        ...


Data = str | Path | Config | Mapping[str, Any] | Iterable[Mapping[str, Any] | Config] | Frame | Dataset
"""A path or a hub dataset's name; rows (dicts, a DataFrame, a Dataset); or a recipe's `data`, in which `rows` may be
any of these too, such as `{"rows": frame, "split": {"test": 0.2}}`; or a list of such sources."""

ROW = "Write rows such as {'prompt': ..., 'answer': ...}"
SOURCE = frozenset({"path", "rows", "generator", "pairs_from"})
"""The keys of which a source has one."""
ROW_KEYS = frozenset().union(*(shape.keys for shape in SHAPES))
"""The keys of which a row has at least one."""
WAYS = (("to_dicts",), ("to_pylist",), ("to_dict", "records"))
"""How polars, pyarrow and pandas tell their rows."""


def source(data: Data) -> Any:
    """What a recipe's `data` says for it. Raises DataError with the row, counted from 1, and the column."""
    if isinstance(data, str | Path):
        return {"path": str(data)}
    if isinstance(data, Config):
        return data
    if isinstance(data, Mapping):
        if _can(data, "column_names"):  # a DatasetDict
            first = next(iter(data), "train")
            raise DataError("a dataset of several splits", value=list(data), remedy=f"Name one: data[{first!r}]")
        return {"type": "inline", **data, "rows": rows(data["rows"])} if "rows" in data else data
    if isinstance(data, list | tuple) and data and all(map(_is_source, data)):
        return tuple(map(source, data))
    return {"type": "inline", "rows": rows(data)}


def _is_source(entry: Any) -> bool:
    """Whether an entry of a list is a recipe's source: a row may have a `path` too, beside what makes it a row."""
    if isinstance(entry, Mapping):
        return not SOURCE.isdisjoint(entry) and ROW_KEYS.isdisjoint(entry)
    return isinstance(entry, Config)


def rows(data: Any) -> list[dict[str, Any]]:
    """The rows as plain JSON values; an empty cell of a table (NaN, NaT, NA, null) is left out, as in a CSV file.

    Raises DataError for what JSON does not have.
    """
    name = type(data).__name__
    table = _can(data, "columns") or _can(data, "column_names")
    try:
        records = enumerate(_records(data, name) if table else data, start=1)
    except TypeError as error:
        raise DataError("this is no data", value=data, remedy=f"Give a path, or rows. {ROW}") from error
    return [_row(record, table, Where(name, number)) for number, record in records]


def _records(table: Any, name: str) -> Iterable[Any]:
    """The rows of a table as dicts, under columns whose names are text and differ."""
    if not hasattr(table, "__len__"):  # an IterableDataset, a LazyFrame
        remedy = "Write data.collect()" if _can(table, "collect") else "Take what you want: list(data.take(1000))"
        raise DataError("the rows are not read yet, and may have no end", file=name, remedy=remedy)
    for column, count in Counter(table.column_names if _can(table, "column_names") else table.columns).items():
        if not isinstance(column, str):
            raise DataError("a column's name is not text", file=name, value=column, remedy="Name the columns")
        if count > 1:
            raise DataError("a column occurs twice", file=name, field=column, remedy="Rename one of them")
    way = next((way for way in WAYS if _can(table, way[0])), None)
    found: Iterable[Any] = table  # a Dataset is its rows
    if way and not _can(table, "features"):
        found = getattr(table, way[0])(*way[1:])
    return found


def _can(data: Any, name: str) -> bool:
    """Whether its type has this: a DataFrame itself has an attribute for each of its columns."""
    return hasattr(type(data), name)


def _row(record: Any, table: bool, where: Where) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise where.error(f"a row is no dict, but {type(record).__name__}", value=record, remedy=ROW)
    try:
        return {
            _key(key, "", where): _plain(value, str(key), where)
            for key, value in record.items()
            if not (table and _missing(value))
        }
    except RecursionError as error:
        raise where.error("nested too deep", remedy="Flatten the row") from error


def _missing(value: Any) -> bool:
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _plain(value: Any, field: str, where: Where) -> Any:
    """The value as JSON has it: numpy's and torch's numbers and arrays as numbers and lists, times as ISO 8601."""
    if hasattr(value, "tolist"):
        if getattr(getattr(value, "dtype", None), "kind", "") == "M":
            value = value.astype("datetime64[us]")  # of nanoseconds, tolist would make whole numbers
        value = value.tolist()
    match value:
        case None | bool():
            return value
        case str():
            return str(value)
        case int():
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case float():
            raise where.error(
                "not a finite number", field=field, value=value, remedy="Use a finite number, or leave the field out"
            )
        case date() | time() if not _missing(value):  # datetime and pandas' Timestamp among them
            return value.isoformat()
        case Mapping():
            return {_key(key, field, where): _plain(inner, f"{field}.{key}", where) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner, f"{field}.{place}", where) for place, inner in enumerate(value)]
    fact = f"{type(value).__name__} is no type of JSON"
    raise where.error(fact, field=field, value=value, remedy="Use text, numbers, lists and dicts")


def _key(key: object, field: str, where: Where) -> str:
    if not isinstance(key, str):
        raise where.error("a key is not text", field=field, value=key, remedy="Use text as keys")
    return str(key)
