"""The rows of a stage outside memory: checked once, written aside, read back one by one.

A million rows cost eight bytes each; the rest lies in a file that has no name and goes with the process.
"""

from __future__ import annotations

import pickle
import tempfile
from array import array
from dataclasses import fields
from pathlib import Path
from typing import Any

from sharpen.types import Labelled, Preference


def _plain(row: Labelled | Preference) -> tuple[Any, ...]:
    """The row's fields, and before them whether it is a preference."""
    return (isinstance(row, Preference), *(getattr(row, field.name) for field in fields(row)))


class Corpus:
    """Labelled or preference rows in a nameless file of `folder`, which needs as much room as the rows themselves."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        self._ends = array("Q", [0])
        self._at_end = True

    def append(self, row: Labelled | Preference) -> None:
        """Add a row at the end."""
        # Only this process writes the file and reads it, so that unpickling runs nobody else's code.
        if not self._at_end:
            self._file.seek(self._ends[-1])
            self._at_end = True
        self._file.write(raw := pickle.dumps(_plain(row), pickle.HIGHEST_PROTOCOL))
        self._ends.append(self._ends[-1] + len(raw))

    def size(self, index: int) -> int:
        """Bytes of a row: at least as many as its text has."""
        return self._ends[index + 1] - self._ends[index]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Labelled | Preference:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self._file.seek(self._ends[index])
        self._at_end = False
        is_preference, *plain = pickle.loads(self._file.read(self.size(index)))
        return Preference(*plain) if is_preference else Labelled(*plain)
