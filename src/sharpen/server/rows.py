"""What a file of rows is worth for a method: its rows, its faults with their lines; read as a stream, without torch.

`python -m sharpen.server.rows FILE METHOD [TRAINING]` prints it as JSON, so that a large file is looked at outside
the server's process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sharpen.data import files, formats, overlap, private
from sharpen.data.formats.messages import require_text
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.types import Example, Labelled, Message, Preference

Method = Literal["supervised", "dpo", "reinforcement"]
Row = Labelled | Example | Preference

SHOWN = 5
"""Faults of a file that are shown; all are counted."""

FEW = 10
"""Rows below which OpenAI refuses a file, and we warn."""

TOKEN_BYTES = 4
"""Bytes of text that a token has, more or less."""

TURN_TOKENS = 4
"""Tokens that stand around a message, more or less."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a row is refused; `line` from 1, None where it is the whole file."""

    line: int | None
    field: str
    message: str

    @classmethod
    def of(cls, error: DataError, where: Where | None) -> Fault:
        """An error's fault, at `where` if it does not know its line; without our paths, and what is private masked."""
        message = error.fact
        if error.seen is not None:
            message += f" (got {private.masked(error.seen)})"
        if error.remedy:
            message += f". {error.remedy}"
        return cls(error.line or (where.line if where else None), error.field, message)

    def __str__(self) -> str:
        place = ", ".join(part for part in (f"line {self.line}" if self.line else "", self.field) if part)
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a file has found."""

    rows: int
    """Good and faulty ones."""

    tokens_estimate: int
    """Tokens of the good ones, by the bytes of their text."""

    faulty: int
    """Rows with a fault."""

    faults: tuple[Fault, ...]
    """The first SHOWN."""

    @property
    def warnings(self) -> list[str]:
        """What is no fault, but should be known."""
        if self.rows >= FEW:
            return []
        return [f"The file has {self.rows} rows only; OpenAI asks for {FEW} at least, and a model learns from more"]

    def as_json(self) -> dict[str, Any]:
        """As the database keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Checked:
        """From what `as_json` made."""
        faults = tuple(Fault(**fault) for fault in value["faults"])
        return cls(value["rows"], value["tokens_estimate"], value["faulty"], faults)


def check(path: Path, method: Method) -> Checked:
    """Read a file to its end as a job of this method would. Raises DataError where it cannot be read."""
    rows = tokens = faulty = 0
    faults: list[Fault] = []
    for where, found in _read(path, method):
        if isinstance(found, DataError):
            faulty += 1
            if len(faults) < SHOWN:
                faults.append(Fault.of(found, where))
        else:
            tokens += _tokens(found)
        rows += where is not None
    return Checked(rows, tokens, faulty, tuple(faults))


def shared(held_out: Path, training: Path, method: Method) -> list[int]:
    """The lines of a held-out file whose prompt the training file has too, as the run compares them.

    Faulty rows are left out. Raises DataError where a file cannot be read.
    """
    lines: dict[bytes, list[int]] = {}
    for where, found in _read(held_out, method):
        if where is not None and not isinstance(found, DataError):
            for key in overlap.keys(found):
                lines.setdefault(key, []).append(where.line)
    seen: set[int] = set()
    for _, found in _read(training, method):
        if not isinstance(found, DataError):
            seen.update(line for key in overlap.keys(found) for line in lines.get(key, ()))
    return sorted(seen)


def _read(path: Path, method: Method) -> Iterator[tuple[Where | None, Row | DataError]]:
    """The rows, or why they are none, with their places; a fault of the whole file has none."""
    if _is_parquet(path):
        yield None, DataError("a Parquet file", remedy="Upload one JSON object a line (JSONL)")
        return
    reader = READERS[method]
    for where, record in files.records(path):
        if isinstance(record, DataError):
            yield (None if record.line is None else where), record
            continue
        try:
            yield where, reader(record, where)
        except DataError as error:
            yield where, error


def _is_parquet(path: Path) -> bool:
    """Whether reading it would take a library that parses what strangers send, in C++."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError as error:
        raise DataError("cannot read the file", value=error.strerror) from error


def _pair(record: Record, where: Where) -> Preference:
    row = formats.preference(record, where)
    if isinstance(row, Labelled):
        raise where.error(
            "a single answer with a label, where two answers are compared",
            remedy='Write {"input": {"messages": [...]}, "preferred_output": [...], "non_preferred_output": [...]}',
        )
    return row


def _problem(record: Record, where: Where) -> Example:
    row = formats.example(record, where)
    require_text(row.messages, formats.place(where))
    return row


READERS: Mapping[Method, Callable[[Record, Where], Row]] = {
    "supervised": formats.labelled,
    "dpo": _pair,
    "reinforcement": _problem,
}
"""What makes a method's rows of records."""


def _tokens(row: Row) -> int:
    if isinstance(row, Labelled) and row.text:
        return _length(row.text)
    if isinstance(row, Preference):
        return _turns(row.messages) * 2 + _turns(row.chosen) + _turns(row.rejected)
    return _turns(row.messages)


def _turns(turns: Sequence[Message]) -> int:
    return sum(TURN_TOKENS + _length(turn["content"]) + _calls(turn) for turn in turns)


def _calls(turn: Message) -> int:
    return _length(json.dumps(turn["tool_calls"])) if turn.get("tool_calls") else 0


def _length(text: str) -> int:
    return -(-len(text.encode()) // TOKEN_BYTES)


def _die_with_parent() -> None:
    """Where the server is killed, nobody waits for the answer."""
    if sys.platform == "linux":
        from sharpen.sandbox import linux

        linux.prctl(linux.PR_SET_PDEATHSIG, 9)


def main(arguments: Sequence[str]) -> None:
    """Print what `check`, or with a training file `shared`, finds."""
    _die_with_parent()
    os.nice(10)  # clients wait for the server, a job waits for this
    path, method = Path(arguments[0]), arguments[1]
    assert method in READERS
    if len(arguments) > 2:
        print(json.dumps(shared(path, Path(arguments[2]), method)))  # type: ignore[arg-type]
    else:
        print(json.dumps(check(path, method).as_json()))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1:])
