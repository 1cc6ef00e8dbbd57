"""A jail, seen from outside: start its zygote, run a program in it, ask, kill. Blocking.

with Jail(blueprint) as jail, jail.run(source) as run:
    run.call("grade", sample, item)
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sharpen.errors import GraderError
from sharpen.sandbox.confine import SCRATCH, Isolation
from sharpen.sandbox.outcome import Limits
from sharpen.sandbox.process import THREADS
from sharpen.sandbox.run import Run, SandboxUnavailable

BOOT = "import sys; sys.path.append(sys.argv[2]); from sharpen.sandbox.zygote import main; main(int(sys.argv[1]))"
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "HOME": "/tmp",
    "TMPDIR": SCRATCH,
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "1",  # else each thread reserves 64 MB of the address space, which is what is limited
    **dict.fromkeys(THREADS, "1"),
}
"""All that a jail has of an environment."""

CHUNK = 1 << 16
WORDS = 2000
"""Characters of what a dead zygote said that are shown."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """How a jail is built: what its runs find there."""

    isolation: Isolation
    path: tuple[str, ...]  # of imports
    readable: tuple[str, ...]  # folders and files
    hidden: tuple[str, ...] = ()  # folders below them that stay empty
    preload: tuple[str, ...] = ()  # modules
    harness: str = "program"
    start_limit: float = 60.0  # seconds


class Jail:
    """One zygote, and its runs."""

    def __init__(self, blueprint: Blueprint) -> None:
        """Start it.

        Raises SandboxUnavailable when the system refuses, GraderError when a module cannot be loaded; with their words.
        """
        self.blueprint = blueprint
        self._owner = os.getpid()
        self._said = tempfile.TemporaryFile()
        self._control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        source = str(Path(__file__).parents[2])
        with child:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-S", "-c", BOOT, str(child.fileno()), source],
                pass_fds=[child.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                start_new_session=True,
                cwd="/",
                env=ENVIRONMENT,
            )
        settings = asdict(blueprint)
        del settings["start_limit"]
        self._control.send(json.dumps(settings).encode())
        said, _ = self._receive(blueprint.start_limit)
        if "ready" not in said:
            words = said.get("failed") or self._last_words() or "it ended without a word"
            self.kill()
            if said.get("loading"):
                raise GraderError(f"{said['loading']!r} cannot be loaded in the sandbox: {words}")
            raise SandboxUnavailable(
                f"sandbox_unavailable: no {blueprint.isolation} sandbox can be built here: {words}"
            )

    def run(self, source: str, limits: Limits, *, name: str = "program", stdin: bytes = b"") -> Run:
        """Start a run of a program; its first answer (`Run.loaded`) comes when it has been executed."""
        run = self.start(limits, stdin)
        run.send({"source": source, "name": name})
        return run

    def start(self, limits: Limits, stdin: bytes = b"") -> Run:
        """Fork a run, which waits for its first frame."""
        ours, theirs = socket.socketpair()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        given = _readable(stdin)
        with theirs:
            ends = [theirs.fileno(), given, out_end, err_end]
            socket.send_fds(self._control, [json.dumps(asdict(limits)).encode()], ends)
        for end in ends[1:]:
            os.close(end)
        try:
            said, descriptors = self._await("pid")
        except BaseException:
            ours.close()
            os.close(out)
            os.close(err)
            raise
        ended = partial(self._ended, said["pid"])
        return Run(ended, ours, (out, err), limits, descriptors[0] if descriptors else -1, said["pid"])

    def _ended(self, pid: int) -> int:
        """Wait for the end of a run; its exit code, or minus its signal."""
        while True:
            said, _ = self._await("ended")
            if said["ended"] == pid:
                return int(said["code"])

    def _await(self, word: str) -> tuple[dict[str, Any], list[int]]:
        """The next message with this word; the ends of earlier runs are of no interest. Raises SandboxUnavailable."""
        while True:
            said, descriptors = self._receive(self.blueprint.start_limit)
            if word in said:
                return said, descriptors
            if "ended" not in said:
                raise SandboxUnavailable(f"the sandbox ended: {self._last_words() or said or 'without a word'}")

    def alive(self) -> bool:
        """Whether the zygote is there."""
        return self._process.poll() is None

    def terminate(self) -> None:
        """Kill the zygote and all its runs, and reap it. A forked copy of the parent leaves it alone."""
        if self._owner != os.getpid() or self._process.returncode is not None:
            return
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """`terminate`, and close the files."""
        self.terminate()
        self._control.close()
        self._said.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _receive(self, limit: float) -> tuple[dict[str, Any], list[int]]:
        self._control.settimeout(limit)
        try:
            message, descriptors, _, _ = socket.recv_fds(self._control, CHUNK, 1)
        except TimeoutError:
            return {"failed": f"no word after {limit:g} s"}, []
        except ConnectionError:
            message, descriptors = b"", []
        return (json.loads(message) if message else {}), descriptors

    def _last_words(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")[-WORDS:].strip()


def _readable(content: bytes) -> int:
    """A descriptor from which the content can be read, and which cannot be written to."""
    if not content:
        return os.open(os.devnull, os.O_RDONLY)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return os.open(file.name, os.O_RDONLY)
