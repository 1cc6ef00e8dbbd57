"""One run in a jail, seen from outside: ask, read what it says and prints, up to its limits, and end it. Blocking."""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from sharpen.errors import GraderError
from sharpen.sandbox import values
from sharpen.sandbox.harness import HEADER, KINDS, LONGEST
from sharpen.sandbox.outcome import Kind, Limits, Outcome

CHUNK = 1 << 16
GRACE = 1.0
"""Seconds a run that has closed its channel may take to end by itself, so that we learn how it ended."""
BY_SIGNAL: dict[str, tuple[Kind, str]] = {
    "SIGKILL": ("oom", "killed for memory"),  # by the system: our own kills are known as such
    "SIGSYS": ("denied", "made a forbidden system call"),
}


def printable(text: str) -> str:
    """The text with lone surrogates, which no file takes, written out."""
    return text.encode("utf-8", "backslashreplace").decode()


class SandboxUnavailable(GraderError):
    """This machine cannot jail a program."""


class Run:
    """One program at work. Every call has its own time; what it prints is read up to the limit and kept."""

    def __init__(
        self,
        exit_code: Callable[[], int],
        channel: socket.socket,
        pipes: tuple[int, int],
        limits: Limits,
        process: int,
        pid: int,
    ) -> None:
        self._exit_code = exit_code  # waits until the run has ended
        self._channel = channel
        self._pipes = pipes
        self._limits = limits
        self._process = process  # a pidfd, or -1
        self._pid = pid
        self._printed = (bytearray(), bytearray())
        self._silent: set[int] = set()  # pipes that have ended
        self._total = 0  # bytes printed since the last answer
        self._received = bytearray()
        self._expected = -1  # the number of the answer that comes next; -1: the walls stand
        self._ended = False
        self._sources = select.poll()
        for source in (channel.fileno(), *pipes):
            os.set_blocking(source, False)
            self._sources.register(source, select.POLLIN)

    @property
    def ended(self) -> bool:
        """Whether it can be asked nothing more."""
        return self._ended

    def loaded(self, seconds: float | None = None) -> Outcome:
        """What came of executing the program. For a whole program (`__main__`) this is its end."""
        limit = self._limits.seconds if seconds is None else seconds
        return self._answer(limit, time.monotonic() + limit)

    def call(self, function: str, *arguments: Any, **named: Any) -> Outcome:
        """Call a function of the program with plain values. Raises ValueError for others."""
        return self.ask({"function": function, "args": list(arguments), "kwargs": named})

    def ask(self, frame: Any, seconds: float | None = None) -> Outcome:
        """Send one frame, and wait for its answer, so many seconds or as long as its limits say."""
        if self._ended:
            return Outcome("crashed", detail="the program has ended")
        if self._received or self._spoke():
            return self._end("crashed", "it answered before it was asked")
        limit = self._limits.seconds if seconds is None else seconds
        deadline = time.monotonic() + limit
        self._send(frame, deadline)
        return self._answer(limit, deadline)

    def send(self, frame: Any) -> None:
        """Send one frame. Should the run die over it, the answer will say so.

        Raises ValueError for what is not plain.
        """
        self._send(frame, time.monotonic() + self._limits.seconds)

    def _send(self, frame: Any, deadline: float) -> None:
        try:
            body = pickle.dumps(frame)
        except Exception as error:  # whatever an object's own methods raise
            raise ValueError(f"not plain data, so it cannot be sent: {type(error).__name__}: {error}") from error
        self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._channel.sendall(HEADER.pack(len(body)) + body)
        except OSError:
            pass
        finally:
            self._channel.setblocking(False)

    def kill(self) -> None:
        """End the run if it goes on, and close its files."""
        self._stop()
        for descriptor in (*self._pipes, self._process):
            if descriptor >= 0:
                os.close(descriptor)
        self._pipes, self._process = (-1, -1), -1
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _answer(self, limit: float, deadline: float) -> Outcome:
        while True:
            frame = self._frame()
            if isinstance(frame, Outcome):
                return frame
            if frame is not None and self._expected >= 0:
                for index in (0, 1):  # what was printed before the answer, if after the poll had looked there
                    self._listen(index)
                return self._printed_too_much() or self._read(frame)
            if frame is not None:
                self._expected = 0
                continue
            left = deadline - time.monotonic()
            ready = self._sources.poll(1000 * left + 1) if left > 0 else None
            if not ready:  # also where it goes on sending and sending
                return self._end("timeout", f"timed out after {limit:g} s")
            for source, _ in ready:
                if source in self._pipes:
                    self._listen(self._pipes.index(source))
                elif not self._hear():
                    return self._obituary()
            if over := self._printed_too_much():
                return over

    def _printed_too_much(self) -> Outcome | None:
        if self._total <= self._limits.output:
            return None
        return self._end("output_limit", f"printed more than {self._limits.output:,} bytes")

    def _frame(self) -> bytes | Outcome | None:
        """The body of the next frame, if all of it is here."""
        if len(self._received) < HEADER.size:
            return None
        (length,) = HEADER.unpack_from(self._received)
        if length > self._limits.answer:
            return self._end("output_limit", f"an answer of more than {self._limits.answer:,} bytes")
        if len(self._received) < HEADER.size + length:
            return None
        body = bytes(self._received[HEADER.size : HEADER.size + length])
        del self._received[: HEADER.size + length]
        return body

    def _read(self, frame: bytes) -> Outcome:
        """The outcome that a frame tells of; the frame may be forged, which gains nothing but this outcome."""
        try:
            number, kind, value = values.loads(frame)
        except (ValueError, TypeError):
            return self._end("crashed", "it broke the protocol")
        if type(number) is not int or number != self._expected or kind not in KINDS:
            return self._end("crashed", "it broke the protocol")
        self._expected += 1
        if kind in ("value", "asks"):
            return self._outcome(kind, value=value)
        return self._outcome(kind, detail=printable(value[:LONGEST]) if type(value) is str else "")

    def _hear(self) -> bool:
        """Read what came over the channel; False where it has ended."""
        try:
            chunk = self._channel.recv(CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._received += chunk
        return bool(chunk)

    def _listen(self, index: int) -> None:
        """Read what stands in a pipe, but no more than it holds now."""
        try:
            chunk = os.read(self._pipes[index], CHUNK)
        except BlockingIOError:
            return
        if not chunk and self._pipes[index] not in self._silent:  # closed: it would be ready for ever
            self._sources.unregister(self._pipes[index])
            self._silent.add(self._pipes[index])
        self._printed[index].extend(chunk)
        self._total += len(chunk)
        if len(chunk) == CHUNK and self._total <= self._limits.output:
            self._listen(index)

    def _spoke(self) -> bool:
        """Whether something has come that nobody asked for."""
        try:
            return bool(self._channel.recv(1, socket.MSG_PEEK))
        except (BlockingIOError, ConnectionError):
            return False

    def _obituary(self) -> Outcome:
        """How a run that closed its channel ended."""
        if self._process >= 0 and select.select([self._process], [], [], GRACE)[0]:
            self._ended = True
            code = self._exit_code()
            if self._expected < 0:
                words = self._outcome("crashed").stderr.strip()
                raise SandboxUnavailable(f"a run could not be walled in: {words or f'exit status {code}'}")
            if code >= 0:
                return self._outcome("exit", f"exit status {code}")
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            return self._outcome(*BY_SIGNAL.get(name, ("crashed", f"killed by {name}")))
        return self._end("crashed", "it closed its channel")

    def _end(self, kind: Kind, detail: str) -> Outcome:
        self._stop()
        return self._outcome(kind, detail)

    def _stop(self) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            if self._process >= 0:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            else:
                os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def _outcome(self, kind: Kind, detail: str = "", value: Any = None) -> Outcome:
        if self._ended:
            for index in (0, 1):
                self._listen(index)
        texts = [bytes(part[: self._limits.output]).decode(errors="replace") for part in self._printed]
        for part in self._printed:
            part.clear()
        self._total = 0
        return Outcome(kind, value, detail, *texts)
