"""The child's side of `WorkerPool`: `python -m sharpen.sandbox.worker FD PARENT`.

Reads frames from the socket FD and answers each one. The first frame holds a pickled factory; what
it returns is called, in the main thread, with the job of every later frame. Files 1 and 2 are one
scratch file, so that printing cannot disturb the protocol and the last words survive a crash.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct(">Q")
"""The length in bytes of the frame that follows."""

GRACE = 5.0
"""Seconds past its limit after which a worker ends itself, should nobody be there to kill it."""


def main(descriptor: int, parent: int) -> None:
    """Serve the parent until it closes its end of the socket, or dies."""
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    faulthandler.enable(2)
    channel = socket.socket(fileno=descriptor)
    try:
        factory, argument = pickle.loads(_receive(channel))
        work: Callable[[Any], Any] = factory(*argument)
    except EOFError:
        return
    except (Exception, SystemExit) as error:
        _send(channel, pickle.dumps(("failed", describe(error))))
        return
    _send(channel, pickle.dumps(("ready", None)))
    while True:
        try:
            limit, pickled = pickle.loads(_receive(channel))
        except (EOFError, ConnectionError):
            return
        os.ftruncate(2, 0)
        # A thread in C, which ends the process even while a hung extension holds the interpreter's lock.
        faulthandler.dump_traceback_later(limit + GRACE, exit=True, file=2)
        answer = _answer(work, pickled)
        faulthandler.cancel_dump_traceback_later()
        _send(channel, answer)


def describe(error: BaseException) -> str:
    """The exception as its type, message and place."""
    summary = traceback.format_exception_only(error)[-1].strip()
    frames = traceback.extract_tb(error.__traceback__)
    return f"{summary} ({frames[-1].filename}:{frames[-1].lineno})" if frames else summary


def _answer(work: Callable[[Any], Any], pickled: bytes) -> bytes:
    try:
        return pickle.dumps(("value", work(pickle.loads(pickled))))
    except (Exception, SystemExit) as error:
        return pickle.dumps(("exception", describe(error)))


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process with its parent; elsewhere the closed socket has to do."""
    if sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _receive(channel: socket.socket) -> bytes:
    (length,) = HEADER.unpack(_exactly(channel, HEADER.size))
    return _exactly(channel, length)


def _exactly(channel: socket.socket, length: int) -> bytes:
    received = bytearray()
    while len(received) < length:
        chunk = channel.recv(min(length - len(received), 1 << 20))
        if not chunk:
            raise EOFError
        received += chunk
    return bytes(received)


def _send(channel: socket.socket, body: bytes) -> None:
    channel.sendall(HEADER.pack(len(body)) + body)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
