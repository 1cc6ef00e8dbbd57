"""A server that behaves as it is told: it speaks HTTP over a plain socket, well or badly, and notes its requests."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

USAGE = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
PATIENCE = 10.0
"""Seconds after which a behaviour that waits gives up, so that no test hangs."""


@dataclass(frozen=True)
class Request:
    """What the server was asked; `arrived` is by the monotonic clock."""

    path: str
    headers: dict[str, str]
    body: Any
    arrived: float

    @property
    def messages(self) -> list[dict[str, str]]:
        """Of a question to a judge."""
        found: list[dict[str, str]] = self.body["messages"]
        return found


Behaviour = Callable[[socket.socket, Request], None]
"""Answers a request on its connection, which is closed afterwards."""


class Fake:
    """The server, while it is entered: the first requests meet the behaviours of `script`, all others `otherwise`."""

    def __init__(self, *script: Behaviour, otherwise: Behaviour | None = None, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self.otherwise = otherwise or scores(0.5)
        self._script = list(script)
        self._at_once = 0
        self._lock = threading.Lock()
        self._port = port
        self._server: socketserver.ThreadingTCPServer | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Listen; after a `stop`, on the same port again."""
        fake = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                fake._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            block_on_close = False
            request_queue_size = 256

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """From now on connections are refused."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        try:
            request = _read(connection)
            with self._lock:
                self.requests.append(request)
                behaviour = self._script.pop(0) if self._script else self.otherwise
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
            try:
                behaviour(connection, request)
            finally:
                with self._lock:
                    self._at_once -= 1
        except OSError:
            pass  # the other side has gone, as some behaviours make it do


def _read(connection: socket.socket) -> Request:
    arrived = time.monotonic()
    found = b""
    while b"\r\n\r\n" not in found:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError
        found += part
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return Request(first.split()[1], headers, json.loads(body) if body else None, arrived)


# What it can do.


def raw(*parts: bytes, pause: float = 0.0) -> Behaviour:
    """Send these bytes, with a pause before each but the first, and close."""

    def behave(connection: socket.socket, request: Request) -> None:
        for number, part in enumerate(parts):
            if number and pause:
                time.sleep(pause)
            connection.sendall(part)

    return behave


def reply(body: bytes | str, status: str = "200 OK", **headers: str) -> Behaviour:
    """A whole response; `_` in a header's name stands for `-`."""
    content = body.encode() if isinstance(body, str) else body
    said = {"content_type": "application/json", "content_length": str(len(content)), "connection": "close", **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in said.items())
    return raw(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + content)


def completion(content: Any, *, usage: Any = USAGE, finish: str = "stop", **message: Any) -> str:
    """A chat completion, as JSON; without `usage` where it is None."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, **message},
        "finish_reason": finish,
    }
    whole = {"id": "chatcmpl-1", "object": "chat.completion", "model": "judge", "choices": [choice]}
    return json.dumps(whole if usage is None else {**whole, "usage": usage})


def says(content: Any, **more: Any) -> Behaviour:
    """A chat completion with this content."""
    return reply(completion(content, **more))


def verdict(result: Any, *conclusions: str) -> str:
    """What a judge should say."""
    steps = [{"description": "looked at it", "conclusion": conclusion} for conclusion in conclusions]
    return json.dumps({"steps": steps, "result": result})


def scores(result: Any) -> Behaviour:
    """A judge's answer with this result."""
    return says(verdict(result, "so it is"))


def by(choose: Callable[[Request], Behaviour]) -> Behaviour:
    """What the request makes of it."""
    return lambda connection, request: choose(request)(connection, request)


def judged_by_content() -> Behaviour:
    """A score that the judged text alone decides."""
    return by(lambda request: scores(content_score(material(request))))


def material(request: Request) -> str:
    """What stands between the marks of a question."""
    (found,) = (MATERIAL.search(message["content"]) for message in request.messages if message["role"] == "user")
    assert found
    return found[2]


MATERIAL = re.compile(r"<material id=(\w+)>\n(.*?)\n</material id=\1>", re.DOTALL)


def content_score(text: str) -> float:
    """A number from 0 to 1 that the text decides."""
    return int(sha256(text.encode()).hexdigest()[:4], 16) / 0xFFFF


def reset(*before: bytes) -> Behaviour:
    """Send these bytes, then break the connection off."""

    def behave(connection: socket.socket, request: Request) -> None:
        raw(*before)(connection, request)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return behave


def hang() -> Behaviour:
    """Say nothing until the other side goes."""

    def behave(connection: socket.socket, request: Request) -> None:
        connection.recv(1)

    return behave


def late(seconds: float, then: Behaviour) -> Behaviour:
    """Wait first."""

    def behave(connection: socket.socket, request: Request) -> None:
        time.sleep(seconds)
        then(connection, request)

    return behave


def drip(seconds: float) -> Behaviour:
    """Headers at once, and then a byte of a large body now and then."""

    def behave(connection: socket.socket, request: Request) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{")
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            time.sleep(seconds)
            connection.sendall(b" ")

    return behave


def endless() -> Behaviour:
    """A body without an end."""

    def behave(connection: socket.socket, request: Request) -> None:
        connection.sendall(b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{"score": 1, "x": "')
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            connection.sendall(b"x" * 65536)

    return behave


def together(count: int, then: Behaviour) -> Behaviour:
    """Wait until so many requests are being answered, then behave."""
    barrier = threading.Barrier(count)

    def behave(connection: socket.socket, request: Request) -> None:
        barrier.wait(PATIENCE)
        then(connection, request)

    return behave
