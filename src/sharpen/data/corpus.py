"""The rows of an SFT stage outside memory: checked once, written aside, read back one by one.

A million rows cost eight bytes each; the rest lies in a file that has no name and goes with the process.
"""

from __future__ import annotations

import pickle
import tempfile
from array import array
from pathlib import Path

from sharpen.types import Labelled


class Corpus:
    """Labelled rows in a nameless file of `folder`, which needs as much room as the rows themselves."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)
        self._ends = array("Q", [0])
        self._at_end = True

    def append(self, row: Labelled) -> None:
        """Add a row at the end."""
        plain = (row.id, row.messages, row.trained, row.tools, row.text, row.desirable, row.place)
        # Only this process writes the file and reads it, so that unpickling runs nobody else's code.
        if not self._at_end:
            self._file.seek(self._ends[-1])
            self._at_end = True
        self._file.write(raw := pickle.dumps(plain, pickle.HIGHEST_PROTOCOL))
        self._ends.append(self._ends[-1] + len(raw))

    def size(self, index: int) -> int:
        """Bytes of a row: at least as many as its text has."""
        return self._ends[index + 1] - self._ends[index]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Labelled:
        if not 0 <= index < len(self):
            raise IndexError(index)
        self._file.seek(self._ends[index])
        self._at_end = False
        return Labelled(*pickle.loads(self._file.read(self.size(index))))
