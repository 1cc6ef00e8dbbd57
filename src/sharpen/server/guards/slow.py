"""Slow clients: uvicorn's protocol with deadlines, so that thousands that say nothing leave the others served.

A client has `header_seconds` for the head of a request; then at least PACE bytes of its body must come, and of its
answer be taken, in each `stall_seconds`. Beyond `connections` the longest idle one is closed to let a new one in.
Deadlines are looked at every so often for all connections together: a request pays two timestamps for them.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import resource
import struct
import termios
from contextlib import suppress
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from sharpen.server.settings import Limits

PACE = 256
"""Bytes that must move in `stall_seconds`."""

HEAD = 2**16
"""Bytes of a request's head at most."""

LOOKS = 1.0
"""Seconds between two looks at all connections, at most."""

SPARE = 512
"""Open files that are not connections: the database's, runs', workers'."""


def connections(limits: Limits) -> int:
    """How many connections may be open, within the files that this process may have; raises its limit to the most."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limits.connections if hard == resource.RLIM_INFINITY else min(limits.connections, max(16, hard - SPARE))


def protocol(limits: Limits) -> type[HttpToolsProtocol]:
    """The protocol of one server; uvicorn makes one of it for each connection."""
    watch = Watch(limits)

    class Watched(Patient):
        def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any], **loop: Any) -> None:
            super().__init__(config, server_state, app_state, watch, **loop)

    return Watched


class Watch:
    """The open connections of a server, and the hand of the clock that goes round them."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.most = connections(limits)
        self.open: set[Patient] = set()
        self.idle: dict[Patient, None] = {}
        """Those without a request in work, the longest idle first."""
        self._every = min(LOOKS, limits.header_seconds / 4, limits.stall_seconds / 4)
        self._ticks = False

    def admit(self, one: Patient) -> bool:
        """Let a connection in, an idle one out where there are too many; False: there is no room."""
        if len(self.open) >= self.most:
            oldest = next(iter(self.idle), None)
            if oldest is None:
                return False
            self.leave(oldest)
            oldest.transport.abort()
        self.open.add(one)
        self.idle[one] = None
        if not self._ticks:
            self._ticks = True
            one.loop.call_later(self._every, self._tick, one.loop)
        return True

    def leave(self, one: Patient) -> None:
        """Forget a connection."""
        self.open.discard(one)
        self.idle.pop(one, None)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for one in [one for one in self.open if one.late(now)]:
            one.let_go()
        self._ticks = bool(self.open)
        if self._ticks:
            loop.call_later(self._every, self._tick, loop)


class Patient(HttpToolsProtocol):
    """One connection; `late` says when patience ends."""

    def __init__(
        self, config: Config, state: ServerState, app_state: dict[str, Any], watch: Watch, **loop: Any
    ) -> None:
        super().__init__(config, state, app_state, **loop)
        self._watch = watch
        self._head_since: float | None = None
        self._head_bytes = 0
        self._moved_at = 0.0  # when bytes of a body, or of an answer, were last seen to move at the pace
        self._body_bytes = 0
        self._left: int | None = None  # bytes of the answer that the client had yet to take then
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._head_since = self.loop.time()
        if not self._watch.admit(self):
            self._refused = True
            self._answer(503, "The server has as many connections as it takes. Try again in a second.", "overloaded")

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._watch.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._refused or self.transport.is_closing():
            return
        if self._head_since is None and (self.cycle is None or self.cycle.response_complete):
            self._head_since = self.loop.time()  # of the next request, or what is left of a body that was refused
        self._body_bytes += len(data)
        super().data_received(data)
        if self._head_since is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD and (self.cycle is None or self.cycle.response_complete) and not self._discards():
            self._answer(431, f"The head of the request has more than {HEAD} bytes.", "headers_too_large")

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        self._head_since = None
        self._head_bytes = 0
        self._moved_at = self.loop.time()
        self._body_bytes = 0
        self._watch.idle.pop(self, None)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """An answer is written, if not yet taken."""
        super().on_response_complete()
        self._moved_at = self.loop.time()
        if not self.pipeline and self in self._watch.open:
            self._watch.idle[self] = None

    def late(self, now: float) -> bool:
        """Whether the client has kept us waiting for too long."""
        limits = self._watch.limits
        if self._head_since is not None and now - self._head_since > limits.header_seconds:
            return True
        if now - self._moved_at < limits.stall_seconds:
            return False
        if self._sends():
            slow = self._body_bytes < PACE
        elif self._takes():
            left = self._untaken()
            slow = self._left is not None and left > self._left - PACE
            self._left = left
        else:
            slow = False
            self._left = None
        self._moved_at, self._body_bytes = now, 0
        return slow

    def let_go(self) -> None:
        """Tell a client that has sent too little why, and close; one that takes nothing is told nothing."""
        cycle = self.cycle
        if self._takes() or (cycle is not None and cycle.response_started and not cycle.response_complete):
            self.transport.abort()
        elif self._discards():
            self.transport.close()
        else:
            self._answer(408, "The request did not come in time.", "request_timeout")
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered in OpenAI's form."""
        self._answer(400, msg, "invalid_http")

    def _sends(self) -> bool:
        """Whether more of a body must come, and we are ready for it."""
        cycle = self.cycle
        return cycle is not None and cycle.more_body and not cycle.response_complete and not self.flow.read_paused

    def _takes(self) -> bool:
        """Whether an answer waits for the client to take it."""
        return self.flow.write_paused or self.transport.is_closing()

    def _discards(self) -> bool:
        """Whether what comes is the rest of a body that was answered already."""
        return self.cycle is not None and self.cycle.response_complete and self.cycle.more_body

    def _untaken(self) -> int:
        """Bytes that the client has not taken, ours and the kernel's."""
        left = self.transport.get_write_buffer_size()
        found = self.transport.get_extra_info("socket")
        with suppress(OSError):
            left += struct.unpack("i", fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return left

    def _answer(self, status: int, message: str, code: str) -> None:
        """Say why, and close."""
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
