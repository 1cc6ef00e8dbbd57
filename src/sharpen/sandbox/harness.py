"""Inside a jail: runs a program, answers calls of its functions. Nothing said from here is believed, only read.

Frames on the channel are a length (4 bytes, network order) and a body: pickled where they come in, from us; a plain
value (`values`) where they go out. The first asks for the program; each further one for a call, and gets one answer,
`(number, kind, value or detail)`, numbered from 0.
"""

from __future__ import annotations

import atexit
import errno
import io
import os
import pickle
import socket
import struct
import sys
import threading
import traceback
import types
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.sandbox import values

HEADER = struct.Struct(">I")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST = 1200
"""Characters of a detail: an exception's message, and its place."""

KINDS = ("value", "exception", "oom", "disk_limit", "denied", "exit", "asks")
"""What a run can say of itself; `asks` is no answer yet (`checks`)."""

Answer = tuple[str, Any]
"""Kind, and the value or the detail."""


def serve(channel: socket.socket) -> None:
    """Run the program of the first frame, and then the calls."""
    order = receive(channel)
    program = types.ModuleType(order["name"])
    sys.modules[order["name"]] = program
    whole = order["name"] == "__main__"

    def run() -> None:
        try:
            exec(compile(order["source"], "<program>", "exec", dont_inherit=True), program.__dict__)
        except SystemExit as error:
            if not whole or error.code not in (None, 0):
                raise
        if whole:  # the interpreter's own end: threads that are not daemons, then exit functions
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()

    reopen()
    answer(channel, 0, attempt(run))
    number = 0
    while not whole:
        call = receive(channel)
        number += 1
        answer(channel, number, attempt(_function(program, call["function"]), *call["args"], **call["kwargs"]))


def receive(channel: socket.socket) -> Any:
    """The next frame's value. Ends the process where there is none."""
    received = bytearray()
    length = HEADER.size
    while len(received) < length:
        chunk = channel.recv(1 << 16)
        if not chunk:
            os._exit(0)
        received += chunk
        if len(received) >= HEADER.size:
            length = HEADER.size + HEADER.unpack_from(received)[0]
    return pickle.loads(memoryview(received)[HEADER.size :])


def answer(channel: socket.socket, number: int, found: Answer) -> None:
    """Send one answer."""
    kind, value = found
    try:
        body = values.dumps((number, kind, value))
    except Exception as error:
        body = values.dumps((number, "exception", f"the answer cannot leave: {_said(error)}"))
    except BaseException:  # a value whose own methods leave: an answer all the same
        body = values.dumps((number, "exception", "the answer cannot leave"))
    _flush()
    channel.sendall(HEADER.pack(len(body)) + body)


def describe(error: BaseException, file: str = "<program>") -> str:
    """The exception as its type and message, and the last line of the program that took part."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{_said(error)} (line {lines[-1]})" if lines else _said(error)


def classify(error: BaseException) -> str:
    """The kind of an outcome that an exception is."""
    if isinstance(error, MemoryError):
        return "oom"
    if isinstance(error, SystemExit):
        return "exit"
    if isinstance(error, OSError):
        if error.errno in FULL:
            return "disk_limit"
        network = (error.errno or 0) < 0  # getaddrinfo's own numbers
        if network or error.errno in (errno.EPERM, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENOSYS):
            return "denied"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "denied"
    return "exception"


def attempt(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Answer:
    """What comes of a call, whatever it raises."""
    try:
        return "value", function(*arguments, **named)
    except BaseException as error:
        try:
            return classify(error), describe(error)
        except BaseException:  # its `__str__` fails too
            return "exception", type(error).__name__


def _function(program: types.ModuleType, name: str) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Mapping[str, Any]) -> Any:
        function = program.__dict__.get(name)
        if not callable(function):
            raise NameError(f"the program has no function {name!r}")
        return function(*arguments, **named)

    return call


def _said(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"exit status {0 if error.code is None else error.code!r:.200}"
    return traceback.format_exception_only(error)[-1].strip()[: LONGEST - 100]


def reopen() -> None:
    """Standard input, output and error on descriptors 0 to 2, in UTF-8."""
    sys.stdin = io.TextIOWrapper(io.FileIO(0, "r", closefd=False), "utf-8", "surrogateescape")
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        raw = io.BufferedWriter(io.FileIO(descriptor, "w", closefd=False))
        setattr(sys, name, io.TextIOWrapper(raw, "utf-8", "surrogateescape", line_buffering=descriptor == 2))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc, assignment]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            continue
