"""One worker process, seen from the parent: start, ask, kill. Blocking; POSIX."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from sharpen.errors import GraderError
from sharpen.sandbox.outcome import Outcome
from sharpen.sandbox.worker import HEADER

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What the libraries of arithmetic read; a worker has one thread."""
LAST_WORDS = 1000
"""How many characters of a dead worker's output are shown."""


class WorkerProcess:
    """A process of its own session, which runs jobs once it is prepared."""

    def __init__(self) -> None:
        """Start the process. Raises GraderError when the system refuses."""
        self._owner = os.getpid()
        self._output = tempfile.TemporaryFile("a+b")
        self._channel, child = socket.socketpair()
        with child:
            try:
                command = [sys.executable, "-P", "-m", "sharpen.sandbox.worker"]
                self._process = subprocess.Popen(
                    [*command, str(child.fileno()), str(self._owner)],
                    pass_fds=[child.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=self._output,
                    stderr=self._output,
                    start_new_session=True,
                    env=_environment(),
                )
            except OSError as error:
                raise GraderError(f"cannot start a worker process: {error}", value=sys.executable) from error

    def prepare(self, payload: bytes, limit: float) -> None:
        """Call the pickled `(factory, arguments)` in the worker, and wait up to `limit` seconds for it.

        Raises GraderError when that fails, with the worker's words.
        """
        try:
            kind, reason = self._exchange(payload, limit)
        except TimeoutError:
            kind, reason = "failed", f"it was not ready after {limit:g} s"
        except (OSError, EOFError):
            kind, reason = "failed", self._obituary()
        if kind != "ready":
            self.kill()
            raise GraderError(f"a worker process could not start: {reason}")

    def ask(self, job: Any, time_limit: float) -> Outcome:
        """The outcome of one job; a worker that hangs or dies is killed."""
        try:
            frame = cloudpickle.dumps((time_limit, cloudpickle.dumps(job)))
        except Exception as error:
            return Outcome("exception", detail=f"the job cannot be pickled: {error}")
        try:
            kind, answer = self._exchange(frame, time_limit)
        except TimeoutError:
            self.kill()
            return Outcome("timeout", detail=f"timed out after {time_limit:g} s")
        except (OSError, EOFError):
            return Outcome("crashed", detail=self._obituary())
        except Exception as error:
            return Outcome("exception", detail=f"the answer cannot be unpickled: {error}")
        return Outcome("value", value=answer) if kind == "value" else Outcome("exception", detail=answer)

    def alive(self) -> bool:
        """Whether the worker waits for a job: its end is open, and silent."""
        if self._channel.fileno() < 0:
            return False
        self._channel.setblocking(False)
        try:
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def terminate(self) -> None:
        """Kill the worker and all it started, and reap it. A forked copy of the parent leaves it alone."""
        if self._owner != os.getpid() or self._process.returncode is not None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # not yet reaped, so the number is still its own
        except (ProcessLookupError, PermissionError):
            self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """`terminate`, and close the files. Only for the thread that asks, or after it."""
        self.terminate()
        self._channel.close()
        self._output.close()

    def _exchange(self, frame: bytes, limit: float) -> Any:
        deadline = time.monotonic() + limit
        self._channel.settimeout(limit)
        self._channel.sendall(HEADER.pack(len(frame)) + frame)
        (length,) = HEADER.unpack(self._receive(HEADER.size, deadline))
        return cloudpickle.loads(self._receive(length, deadline))

    def _receive(self, length: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < length:
            self._channel.settimeout(max(deadline - time.monotonic(), 1e-3))
            chunk = self._channel.recv(min(length - len(received), 1 << 20))
            if not chunk:
                raise EOFError
            received += chunk
        return bytes(received)

    def _obituary(self) -> str:
        """How the worker died, and its last words. Kills what is left of it."""
        self._output.seek(0)
        words = self._output.read().decode(errors="replace")[-LAST_WORDS:].strip()
        self.kill()
        status = self._process.returncode
        cause = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"the worker died ({cause}): {words}" if words else f"the worker died ({cause})"


def _environment() -> dict[str, str]:
    """This process's environment, imports and all; one thread, and a fixed order of sets."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return {"PYTHONHASHSEED": "0", **os.environ, **dict.fromkeys(THREADS, "1"), "PYTHONPATH": path}
