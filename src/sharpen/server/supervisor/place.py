"""Where a job's files are: its recipe, its log and the lock of its process beside the run directory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sharpen.server.ids import LENGTH

LOG, TAIL = 4 << 20, 1 << 20
"""Bytes of a log that is too long, and those of its end that stay."""

MARK = "--- a process of this job begins ---"
"""Stands in the log before what each says."""


@dataclass(frozen=True, slots=True)
class Place:
    """The folders of one job below the data folder."""

    data: Path
    """The data folder, absolute."""

    job: str

    @property
    def folder(self) -> Path:
        """The supervisor's own."""
        return self.data / "jobs" / self.job

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.data / "runs" / self.job

    @property
    def recipe(self) -> Path:
        """What `sharpen run` is given."""
        return self.folder / "recipe.yaml"

    @property
    def log(self) -> Path:
        """What the process says."""
        return self.folder / "log.txt"

    @property
    def lock(self) -> Path:
        """Locked by the process, and by all that it starts, for as long as they live."""
        return self.folder / "lock"

    @property
    def pid(self) -> Path:
        """The number of the process that has the lock."""
        return self.folder / "pid"

    @property
    def kept(self) -> Path:
        """Checkpoints that clients see, whatever the run itself has no more use for."""
        return self.run / "checkpoints"

    def make(self) -> None:
        """Make the folders."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run.parent.mkdir(exist_ok=True, mode=0o700)

    def begun(self) -> float:
        """When the process that has the lock was started, in seconds since 1970; 0: not known."""
        return _modified(self.pid)

    def last_write(self) -> float:
        """When the process last wrote anything, in seconds since 1970; 0: never."""
        written = [self.log, *self.run.glob("*.jsonl"), *self.run.glob("journal/*"), *self.run.glob("evals/*")]
        written += self.run.glob("rollouts/*")  # a folder's time is that of its newest file's name
        return max((time for path in written if (time := _modified(path))), default=0.0)

    def last_words(self, lines: int = 20) -> list[str]:
        """The end of the log, no more than the last process has said."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (lines << 9)))
                said = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        said = said.rpartition(MARK)[2]
        return [line for raw in said.replace("\r", "\n").split("\n") if (line := raw.strip())][-lines:]

    def trim(self) -> None:
        """Cut a log that is too long to its end; the process goes on writing behind that."""
        try:
            if self.log.stat().st_size <= LOG:
                return
            with self.log.open("r+b") as file:
                file.seek(-TAIL, os.SEEK_END)
                kept = file.read()
                file.truncate(0)
            with self.log.open("ab") as file:
                file.write(kept[kept.find(b"\n") + 1 :])
        except OSError:
            return


def counted(kind: str, *facts: object) -> str:
    """An id that is the same whenever the same is told: of a job's event, say, by its place in the run."""
    digest = hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()
    return f"{kind}-{digest[:LENGTH]}"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
