"""The file of answers: it grows a batch at a time, and a small file beside it says how far it is sound."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from sharpen.answer.rows import TABLES
from sharpen.errors import ConfigError, RunError
from sharpen.runs.store import write_text

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

LINES = (".jsonl", ".ndjson")
"""The other containers that answers may be written to."""


_ANEW = "To begin anew, add --overwrite; or choose another --out"


class Done(NamedTuple):
    """How far an output is: its rows, how many of their answers were cut off, and the file's sound beginning."""

    rows: int = 0
    cut: int = 0
    bytes: int = 0
    sha256: str = hashlib.sha256().hexdigest()


class Output:
    """One file of answers, and `NAME.state.json` beside it for as long as it is unfinished.

    `made_by` says what the answers depend on: an output goes on only under the same. All writing raises RunError
    where the disk is full; what was written by then is kept.
    """

    def __init__(self, path: Path, made_by: Mapping[str, Any]) -> None:
        """Raises ConfigError for a name that says no container."""
        suffix = path.suffix.lower()
        if suffix not in (*LINES, *TABLES):
            raise ConfigError(
                "the name should end in .jsonl, .csv or .tsv, which says how the answers are written",
                path="--out",
                value=str(path),
            )
        self.path = path
        self.state = path.with_name(f"{path.name}.state.json")
        self._made_by = dict(made_by)
        self._delimiter = TABLES.get(suffix)

    def found(self, overwrite: bool = False) -> Done:
        """How far an earlier process came. Raises RunError where the file is no unfinished one of the same making.

        To `overwrite` is to begin anew, whatever is there.
        """
        if overwrite or not self.path.exists():
            return Done()
        if not self.state.exists():
            raise RunError("the file of answers exists already", value=str(self.path), remedy=_ANEW)
        try:
            state = json.loads(self.state.read_text("utf-8"))
            done, made_by = Done(**state["done"]), state["made_by"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError("the file beside the answers cannot be read", value=str(self.state), remedy=_ANEW) from error
        if changed := _changes(made_by, self._made_by):
            raise RunError(
                f"{self.path} holds answers that were made otherwise: {'; '.join(changed)}",
                remedy=f"Go on as it was begun. {_ANEW}",
            )
        with self.path.open("rb") as file:
            sound = _hash(file, done.bytes).hexdigest() == done.sha256
        if not sound:
            raise RunError(
                f"the file of answers was changed since its {done.rows:,} rows were written",
                value=str(self.path),
                remedy=_ANEW,
            )
        return done

    @contextmanager
    def opened(self, done: Done, fields: Sequence[str]) -> Iterator[Writer]:
        """The output, held by this process alone; what stands after its sound beginning is cut away.

        `fields` are the columns of a table.
        """
        with _written(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not done.bytes:
                self.note(done)  # first: an output without it is taken for a stranger's
            file = self.path.open("a+b")
        try:
            with _written(self.path):
                _hold(file, self.path)
                file.truncate(done.bytes)
            yield Writer(self, file, done, fields)
        finally:
            with suppress(OSError):  # of a full disk, which was told already
                file.close()

    def note(self, done: Done) -> None:
        """Write down how far the file is sound."""
        state = {"schema_version": 1, "made_by": self._made_by, "done": done._asdict()}
        write_text(self.state, json.dumps(state, indent=1, ensure_ascii=False) + "\n")

    def lines(self, records: Sequence[Mapping[str, Any]], fields: Sequence[str], begins: bool) -> bytes:
        """The records as the file has them; a table begins with the names of its columns."""
        if self._delimiter is None:
            return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        text = io.StringIO()
        writer = csv.DictWriter(text, fields, restval="", delimiter=self._delimiter, lineterminator="\n")
        if begins:
            writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in record.items()} for record in records)
        return text.getvalue().encode()


class Writer:
    """An output that is open."""

    def __init__(self, output: Output, file: IO[bytes], done: Done, fields: Sequence[str]) -> None:
        self.done = done
        self._output = output
        self._file = file
        self._fields = fields
        self._hash = _hash(file, done.bytes)

    def append(self, records: Sequence[Mapping[str, Any]], cut: int) -> None:
        """Add records, of which `cut` have an answer that was cut off, and make sure that they are on disk."""
        raw = self._output.lines(records, self._fields, begins=self.done.bytes == 0)
        with _written(self._output.path):
            self._file.write(raw)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._hash.update(raw)
            rows, cut_before, length, _ = self.done
            self.done = Done(rows + len(records), cut_before + cut, length + len(raw), self._hash.hexdigest())
            self._output.note(self.done)

    def finish(self) -> None:
        """The file is whole: what stands beside it is not needed any more."""
        self._output.state.unlink()


def _cell(value: Any) -> Any:
    """A value as a table's cell: text as it is, nothing for null, all else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, in words; of digests only that they do."""
    found = []
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old != new:
            is_digest = isinstance(old, str) and len(old) == 64
            found.append(f"another {name}" if is_digest else f"{name} was {old!r}, and is {new!r}")
    return found


def _hash(file: IO[bytes], length: int) -> hashlib._Hash:
    """SHA-256 of a file's first bytes."""
    found = hashlib.sha256()
    file.seek(0)
    while length and (part := file.read(min(length, 1 << 20))):
        found.update(part)
        length -= len(part)
    return found


def _hold(file: IO[bytes], path: Path) -> None:
    """Lock the file. Raises RunError where another process writes it."""
    try:
        import fcntl  # not on Windows, where nobody is kept out
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise RunError(
            "another process is writing the file of answers",
            value=str(path),
            remedy="Wait for it, stop it, or choose another --out",
        ) from error


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Turn what keeps a file from being written into a clear error."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise RunError(
                "the disk is full; the rows answered before are kept",
                value=str(path),
                remedy="Make room, then run the same command again: it goes on",
            ) from error
        raise RunError(
            f"the file of answers cannot be written: {error.strerror}", value=str(path), remedy="Choose another --out"
        ) from error
