"""One door to the rows of any configured source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sharpen.config.data import Data, FileData, InlineData, PairsData, ReasoningGymData, Source, sources
from sharpen.config.graders import GraderConfig
from sharpen.data import files, formats, gym, hub, overlap, pairs, read
from sharpen.data.formats.columns import rename
from sharpen.data.formats.parts import Purpose
from sharpen.errors import ConfigError, DataError
from sharpen.types import Example, Labelled, Preference

Row = TypeVar("Row", Labelled, Example, Preference | Labelled)
Written = FileData | InlineData | PairsData
"""Sources of rows that have a shape."""

Numbered = Iterator[tuple[read.Where, read.Record]]


def read_labelled(data: Data, base: Path) -> Iterator[Labelled]:
    """The rows of all sources for SFT, as a stream; paths are relative to `base`. Raises DataError."""
    for source in sources(data):
        if source.grader is not None:
            raise ConfigError(
                "a grader, but rows for SFT are imitated, not graded", path="data.grader", remedy="Remove it"
            )
        if isinstance(source, ReasoningGymData):
            yield from gym.labelled(source)
        else:
            yield from _made(formats.labelled, source, base, "sft")


def read_examples(data: Data, base: Path) -> Iterator[Example]:
    """The rows of all sources for RFT or evaluation, as a stream; each knows its source's grader. Raises DataError."""
    for source in sources(data):
        gym_or_rows = (
            gym.examples(source)
            if isinstance(source, ReasoningGymData)
            else _made(formats.example, source, base, "rft")
        )
        own = grader_key(source.grader)
        yield from (replace(row, grader=own) for row in gym_or_rows) if own else gym_or_rows


def read_pairs(data: Data, base: Path) -> Iterator[Preference]:
    """Two answers of which one is better, of all sources, as a stream. Raises DataError, also for single answers."""
    for row in read_preferences(data, base):
        if isinstance(row, Labelled):
            raise DataError(
                "a single answer with a label, where two answers are compared",
                file=row.place,
                remedy="Give rows with chosen and rejected, or take `loss: kto`, which learns from single answers",
            )
        yield row


def read_answers(data: Data, base: Path) -> Iterator[Labelled]:
    """Answers that are desirable or not, of all sources, as a stream; a pair is one of each. Raises DataError."""
    for row in read_preferences(data, base):
        if isinstance(row, Labelled):
            yield row
        else:
            yield row.answered(row.chosen, desirable=True)
            yield row.answered(row.rejected, desirable=False)


def read_preferences(data: Data, base: Path) -> Iterator[Preference | Labelled]:
    """The preference and KTO rows of all sources, as a stream. Raises DataError."""
    for source in sources(data):
        if isinstance(source, ReasoningGymData):
            raise ConfigError(
                "generated problems have one answer, not two", path="data", value=source.generator, remedy="Give a file"
            )
        yield from _made(formats.preference, source, base, "dpo")


def training_keys(data: Data, base: Path, *, labelled: bool, among: Collection[bytes] | None = None) -> set[bytes]:
    """The keys of all prompts of a training source, for `overlap.held_out`.

    `labelled` says whether a stage reads it as labelled rows (SFT). With `among`, only keys that are in it are
    kept, so that a stream of any length needs no memory.
    """
    found: set[bytes] = set()
    for source in sources(data):
        as_labelled = labelled and not isinstance(source, ReasoningGymData)  # examples also carry the bare question
        rows: Iterator[Example] | Iterator[Labelled]
        rows = read_labelled(source, base) if as_labelled else read_examples(source, base)
        found.update(key for row in rows for key in overlap.keys(row) if among is None or key in among)
    return found


def grader_key(config: GraderConfig | None) -> str:
    """A name for a source's own grader, equal for equal graders; empty where there is none."""
    return blake2b(config.model_dump_json().encode(), digest_size=8).hexdigest() if config else ""


def fingerprint(data: Data, base: Path) -> str:
    """SHA-256 of what the rows are made of: files, inline rows, or generator and version."""
    prints = [_fingerprint(source, base) for source in sources(data)]
    return prints[0] if len(prints) == 1 else _digest(prints)


def pinned(data: FileData, base: Path) -> FileData:
    """The same source with an absolute path, or a hub dataset at the commit it has now."""
    name = hub.parse(data.path, base)
    path = str(hub.pin(name)) if name else str((base / Path(data.path).expanduser()).resolve())
    return data.model_copy(update={"path": path})


def paths(data: FileData, base: Path) -> list[Path]:
    """The files of a source: one, or those of a hub dataset, which are fetched when missing."""
    name = hub.parse(data.path, base)
    return hub.fetch(name) if name else [base / Path(data.path).expanduser()]


def _made(
    make: Callable[[read.Record, read.Where], Row], source: Written, base: Path, purpose: Purpose
) -> Iterator[Row]:
    rows = partial(_renamed, source, base)
    if source.split is None:
        return (make(record, where) for where, record in rows())
    from sharpen.data import split  # numpy, which most sources do not need

    chosen = split.part(rows, source.split, partial(formats.prompts, purpose=purpose))
    return (make(record, where) for where, record in chosen)


def _renamed(source: Written, base: Path) -> Numbered:
    for where, record in _records(source, base):
        yield where, record if isinstance(source, PairsData) else rename(record, source.columns, where)


def _records(data: Written, base: Path) -> Numbered:
    if isinstance(data, FileData):
        yield from islice((row for path in paths(data, base) for row in files.rows(path)), data.limit)
        return
    if isinstance(data, PairsData):
        yield from pairs.rows(data, base)
        return
    if not data.rows:
        raise DataError("there are no rows", file="inline", remedy="Give at least one row")
    for number, record in enumerate(data.rows, start=1):
        where = read.Where("inline", number)
        read.check(record, where)
        yield where, record


def _fingerprint(data: Source, base: Path) -> str:
    match data:
        case FileData():
            digests = [_file_digest(path) for path in paths(data, base)]
            return digests[0] if len(digests) == 1 else _digest(digests)
        case InlineData() | PairsData():
            return _digest([record for _, record in _records(data, base)])
        case ReasoningGymData():
            settings = data.model_dump(mode="json", exclude={"grader", "weight"})  # neither changes what is drawn
            return _digest({**settings, "version": gym.installed()})


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", file=str(path), remedy="Check the path") from error


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
