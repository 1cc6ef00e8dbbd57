"""A zygote: `python -c ... DESCRIPTOR`. It builds the walls, loads what runs will need, and forks a run when asked.

It reads no foreign data: a run's program and inputs go to the run itself, over a channel whose end the parent passes
through (`jail.Jail`). So a run finds nothing of the runs before it in its memory.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from sharpen.sandbox import checks, confine, harness, jobs
from sharpen.sandbox.outcome import Limits

HARNESSES: dict[str, Callable[[socket.socket], None]] = {
    "program": harness.serve,
    "checks": checks.serve,
    "jobs": jobs.serve,
}
LONGEST = 1 << 16
"""Bytes of a message on the control socket."""


def main(descriptor: int) -> None:
    """Serve the parent until it closes its end, or dies."""
    control = socket.socket(fileno=descriptor)
    confine.die_with_parent()
    settings = json.loads(control.recv(LONGEST))
    walls = confine.Walls(settings["isolation"], settings["readable"], settings["hidden"])
    loading = ""
    try:
        walls.build()
        sys.path[:] = settings["path"]
        for loading in settings["preload"]:
            importlib.import_module(loading)
    except Exception as error:
        _tell(control, {"failed": f"{type(error).__name__}: {error}", "loading": loading})
        return
    gc.collect()
    gc.freeze()
    _tell(control, {"ready": True})
    _Nursery(control, walls, HARNESSES[settings["harness"]]).serve()


class _Nursery:
    """Forks runs, and tells the parent of each its process and, when it has ended, how."""

    def __init__(self, control: socket.socket, walls: confine.Walls, harness: Callable[[socket.socket], None]) -> None:
        self._control = control
        self._walls = walls
        self._harness = harness

    def serve(self) -> None:
        """Until the parent closes its end."""
        wake, awake = os.pipe()
        os.set_blocking(awake, False)
        signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        while True:
            ready, _, _ = select.select([self._control.fileno(), wake], [], [])
            if wake in ready:
                os.read(wake, LONGEST)
                self._reap()
            if self._control.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._control, LONGEST, 4)
                if not message:
                    return
                self._fork(Limits(**json.loads(message)), descriptors)

    def _fork(self, limits: Limits, descriptors: list[int]) -> None:
        pid = self._walls.fork()
        if not pid:
            self._become(limits, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        said = json.dumps({"pid": pid}).encode()
        if not hasattr(os, "pidfd_open"):
            self._control.send(said)
            return
        process = os.pidfd_open(pid)
        socket.send_fds(self._control, [said], [process])
        os.close(process)

    def _become(self, limits: Limits, descriptors: list[int]) -> NoReturn:
        """In the child: go behind the walls, and be the run."""
        code = 125
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            _arrange(descriptors)
            channel = socket.socket(fileno=3)
            self._walls.enter(limits)
            harness.answer(channel, -1, ("value", None))
            code = 0
            self._harness(channel)
        except BaseException as error:
            code = code or 1
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            _tell(self._control, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _arrange(descriptors: list[int]) -> None:
    """The run's channel, standard input, output and error as descriptors 3, 0, 1 and 2."""
    high = [os.dup2(descriptor, 200 + index) for index, descriptor in enumerate(descriptors)]
    for descriptor, target in zip(high, (3, 0, 1, 2), strict=True):
        os.dup2(descriptor, target, inheritable=False)


def _tell(control: socket.socket, said: object) -> None:
    control.send(json.dumps(said).encode())
