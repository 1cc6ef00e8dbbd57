"""One door to the rows of any configured source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sharpen.config.data import Data, InlineData, JsonlData, ReasoningGymData
from sharpen.data import formats, gym, overlap, read
from sharpen.errors import DataError
from sharpen.types import Example, Labelled


def read_labelled(data: Data, base: Path) -> Iterator[Labelled]:
    """The rows of a source for SFT, as a stream; paths are relative to `base`. Raises DataError."""
    if isinstance(data, ReasoningGymData):
        return gym.labelled(data)
    return (formats.labelled(record, where) for where, record in _records(data, base))


def read_examples(data: Data, base: Path) -> Iterator[Example]:
    """The rows of a source for RFT or evaluation, as a stream. Raises DataError."""
    if isinstance(data, ReasoningGymData):
        return gym.examples(data)
    return (formats.example(record, where) for where, record in _records(data, base))


def training_keys(data: Data, base: Path, *, labelled: bool) -> set[bytes]:
    """The keys of all prompts of a training source, for `overlap.held_out`.

    `labelled` says whether a stage reads it as labelled rows (SFT).
    """
    as_labelled = labelled and not isinstance(data, ReasoningGymData)  # examples also carry the bare question
    rows: Iterator[Example] | Iterator[Labelled]
    rows = read_labelled(data, base) if as_labelled else read_examples(data, base)
    return {key for row in rows for key in overlap.keys(row)}


def fingerprint(data: Data, base: Path) -> str:
    """SHA-256 of what the rows are made of: the file, the inline rows, or generator and version."""
    match data:
        case JsonlData():
            path = _path(data, base)
            try:
                with path.open("rb") as file:
                    return hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise DataError(
                    f"cannot read the file: {error.strerror}", file=str(path), remedy="Check the path"
                ) from error
        case InlineData():
            return _digest([record for _, record in _records(data, base)])
        case ReasoningGymData():
            return _digest({**data.model_dump(mode="json"), "version": gym.installed()})


def _records(data: JsonlData | InlineData, base: Path) -> Iterator[tuple[read.Where, read.Record]]:
    if isinstance(data, JsonlData):
        yield from islice(read.rows(_path(data, base)), data.limit)
        return
    if not data.rows:
        raise DataError("there are no rows", file="inline", remedy="Give at least one row")
    for number, record in enumerate(data.rows, start=1):
        where = read.Where("inline", number)
        read.check(record, where)
        yield where, record


def _path(data: JsonlData, base: Path) -> Path:
    return base / Path(data.path).expanduser()


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
