"""The process of a job. It outlives the server, and there is never a second one for the same job.

A lock makes sure of that: the process is born with it, so it is held from the first moment to the last, whatever
becomes of the server meanwhile. A server that finds it held adopts the process.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sharpen.server.environment import inherited
from sharpen.server.grading.translate import NO_KEY
from sharpen.server.supervisor.place import MARK, Place

Command = Callable[[Place, bool], Sequence[str]]
"""What is started for a job; True: its run has begun before."""

BORN = 'echo $$ >"$0" && { echo 500 >/proc/self/oom_score_adj; } 2>/dev/null; exec "$@"'
"""The process notes its number itself, before anything else; short of memory, it dies rather than the server."""

SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD")
"""What the names of variables have in them that hold secrets."""


class Held(Exception):
    """The job has a process already."""


class Trainer:
    """A job's process: started here, or by an earlier server."""

    def __init__(self, place: Place, child: subprocess.Popen[bytes] | None) -> None:
        self._place = place
        self._child = child

    @classmethod
    def start(cls, place: Place, command: Sequence[str], environment: Mapping[str, str]) -> Trainer:
        """Raises Held where the job has a process, and OSError where none can be made."""
        place.make()
        with place.lock.open("a") as lock, place.log.open("ab") as log:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Held(place.job) from error
            place.pid.unlink(missing_ok=True)
            log.write(f"{MARK}\n".encode())
            log.flush()
            child = subprocess.Popen(
                ["/bin/sh", "-c", BORN, str(place.pid), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=place.folder,
                env=dict(environment),
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
        return cls(place, child)

    @classmethod
    def adopted(cls, place: Place) -> Trainer | None:
        """The process that an earlier server started; None: there is none (any more)."""
        return cls(place, None) if held(place.lock) else None

    @property
    def pid(self) -> int | None:
        """Its number; None: not known yet."""
        if self._child:
            return self._child.pid
        with suppress(OSError, ValueError):
            return int(self._place.pid.read_text())
        return None

    @property
    def code(self) -> int | None:
        """How it ended, as Popen says it; None where it has not, or where another server started it."""
        return self._child.poll() if self._child else None

    def alive(self) -> bool:
        """Whether it is there. What it has left behind when it ended is ended."""
        if not held(self._place.lock):
            if self._child:
                self._child.wait()
            return False
        if self._gone():
            self.kill()
        return True

    def ask_to_stop(self) -> None:
        """Have it end with a checkpoint; asking again changes nothing."""
        # A second SIGINT would end it at once, and a shell's background jobs never see the first.
        self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        self._signal(os.killpg, signal.SIGKILL)

    def _gone(self) -> bool:
        if self._child:
            return self._child.poll() is not None
        pid = self.pid
        if pid is None:
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        pid = self.pid
        if pid and (self._child is None or self._child.poll() is None or send is os.killpg):
            with suppress(ProcessLookupError, PermissionError):
                send(pid, number)


def held(lock: Path) -> bool:
    """Whether a process has the lock."""
    try:
        with lock.open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except FileNotFoundError:
        pass
    return False


def command(place: Place, resume: bool) -> Sequence[str]:
    """`sharpen run`."""
    told = ["--resume", str(place.run)] if resume else [str(place.recipe), "--out", str(place.run)]
    return [sys.executable, "-m", "sharpen.cli.main", "run", *told]


def environment(threads: int, more: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Of a job's process: no secret of the server's but the `keys` that its own recipe names."""
    return {**inherited(threads, [name for name in keys if name != NO_KEY]), "PYTHONUNBUFFERED": "1", **more}


def secrets() -> tuple[str, ...]:
    """What no process may tell, should it know it."""
    return tuple(value for name, value in os.environ.items() if SECRET.search(name))
