"""A data folder belongs to one server at a time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO, Self

from sharpen.errors import RunError

NAME = "server.lock"
WAITS = 2.0
"""Seconds that a server waits for the folder of one that has just been ended."""


class Lock:
    """Holds a data folder, as a context; it is free again when the process ends, however it ends."""

    def __init__(self, folder: Path, waits: float = WAITS) -> None:
        self._folder = folder
        self._waits = waits
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """Take it. Raises RunError where another server has it, or where it cannot be written."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = (self._folder / NAME).open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"the data folder cannot be written: {error.strerror}",
                value=str(self._folder),
                remedy="Give the server's user the right to write there, or choose another --data-dir",
            ) from error
        ends = time.monotonic() + self._waits
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() < ends:
                    time.sleep(0.05)
                    continue
                self._file.seek(0)
                holder = self._file.read(20).strip()
                self.__exit__()
                raise RunError(
                    "another server is at work in this data folder",
                    value=f"{self._folder}, process {holder}",
                    remedy="Stop it, or choose another --data-dir",
                ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
            self._file = None
