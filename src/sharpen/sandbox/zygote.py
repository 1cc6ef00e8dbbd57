"""A zygote: `python -c ... DESCRIPTOR`. It builds the walls, loads what runs will need, and forks a run when asked.

It reads no foreign data: a run's program and inputs go to the run itself, over a channel whose end the parent passes
through (`jail.Jail`). So a run finds nothing of the runs before it in its memory.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import socket
import sys
from collections.abc import Callable

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
    try:
        walls.build()
        sys.path[:] = settings["path"]
        for name in settings["preload"]:
            importlib.import_module(name)
    except Exception as error:
        _tell(control, {"failed": f"{type(error).__name__}: {error}"})
        return
    gc.collect()
    gc.freeze()
    _tell(control, {"ready": True})
    serve = HARNESSES[settings["harness"]]
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, LONGEST, 4)
        if not message:
            return
        _run(control, walls, Limits(**json.loads(message)), descriptors, serve)


def _run(
    control: socket.socket,
    walls: confine.Walls,
    limits: Limits,
    descriptors: list[int],
    serve: Callable[[socket.socket], None],
) -> None:
    """Fork one run, tell the parent who it is, wait for its end, and tell how it ended."""
    pid = walls.fork()
    if not pid:
        code = 125
        try:
            control.close()
            _arrange(descriptors)
            channel = socket.socket(fileno=3)
            walls.enter(limits)
            harness.answer(channel, -1, ("value", None))
            code = 0
            serve(channel)
        except BaseException as error:
            code = code or 1
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    for descriptor in descriptors:
        os.close(descriptor)
    process = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    if process >= 0:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [process]))]
        control.sendmsg([json.dumps({"pid": pid}).encode()], rights)
        os.close(process)
    else:
        _tell(control, {"pid": pid})
    _, status = os.waitpid(pid, 0)
    _tell(control, {"ended": os.waitstatus_to_exitcode(status)})


def _arrange(descriptors: list[int]) -> None:
    """The run's channel, standard input, output and error as descriptors 3, 0, 1 and 2."""
    high = [os.dup2(descriptor, 200 + index) for index, descriptor in enumerate(descriptors)]
    for descriptor, target in zip(high, (3, 0, 1, 2), strict=True):
        os.dup2(descriptor, target, inheritable=False)


def _tell(control: socket.socket, said: object) -> None:
    control.send(json.dumps(said).encode())
