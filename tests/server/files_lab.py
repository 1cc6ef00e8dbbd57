"""A live server for tests of files and uploads, and clients of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import uvicorn

from sharpen.server import app as application
from sharpen.server.core import Server
from sharpen.server.keys import Scope, create_key
from sharpen.server.settings import Settings

TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]
ROW = json.dumps({"messages": TURNS})


EDGE = "edge-of-the-form"
TYPE = {"Content-Type": f"multipart/form-data; boundary={EDGE}"}


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    """A field of a form."""
    said = f'; filename="{filename}"' if filename is not None else ""
    return f'--{EDGE}\r\nContent-Disposition: form-data; name="{name}"{said}\r\n\r\n'.encode() + value + b"\r\n"


END = f"--{EDGE}--\r\n".encode()
PURPOSE = part("purpose", b"fine-tune")
FILE = part("file", ROW.encode(), "train.jsonl")


def wait(until: Any) -> None:
    """Until something is so; AssertionError after 20 seconds."""
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


class House:
    """A server that listens; `ask` sends bytes as they are, `client` is the stock SDK."""

    def __init__(self, server: Server, base: str) -> None:
        self.server = server
        self.base = base
        self.key = self.new_key()
        self.http = httpx2.Client(timeout=30)

    def new_key(self, project: str = "default", scopes: tuple[Scope, ...] = ("read", "write")) -> str:
        """The secret of a new key."""
        return self.server.db.change(lambda connection: create_key(connection, project, "test", scopes, None))

    def client(self, key: str | None = None) -> openai.OpenAI:
        """The SDK; it does not ask again."""
        return openai.OpenAI(base_url=f"{self.base}/v1", api_key=key or self.key, max_retries=0, http_client=self.http)

    def ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """One request without the SDK."""
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return self.http.request(method, self.base + path, headers=headers, **options)

    def on_disk(self) -> set[str]:
        """The names of all files below the storage's folder, marks too."""
        return {path.name for path in self.server.storage.folder.rglob("*") if path.is_file()}


@contextmanager
def house(folder: Path, **settings: Any) -> Iterator[House]:
    """A server over a folder."""
    app = application.create(Settings.model_validate({"data_dir": folder, **settings}))
    runner = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=runner.run)
    thread.start()
    try:
        while not runner.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = runner.servers[0].sockets[0].getsockname()[1]
        made = House(app.state.server, f"http://127.0.0.1:{port}")
        with made.http:
            yield made
    finally:
        runner.should_exit = True
        thread.join()
