"""A server of its own for a bench: `sharpen serve` in a folder, with keys, and trainers that only wait."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from bench.common import ROOT
from bench.server.wire import Client, head
from sharpen.server.database import Database
from sharpen.server.keys import create_key
from sharpen.server.settings import Settings

MODEL = "gpt-4.1-mini"
STARTS = 60.0
"""Seconds within which it must answer."""


class Process:
    """A server that is started, killed and started again on one folder and port; a context that ends it."""

    def __init__(self, folder: Path, model: str, *, trains: bool = False, **settings: Any) -> None:
        """`trains` False: jobs run, but their processes do nothing."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = _free_port()
        given = {"host": "127.0.0.1", "port": self.port, "data_dir": str(folder / "data"), "models": {MODEL: model}}
        self.settings = Settings.model_validate({**given, **settings})
        self._config = folder / "server.yaml"
        self._config.write_text(json.dumps({**given, **settings}))
        program = ["sharpen.cli.main"] if trains else ["bench.server.quiet"]
        self._command = [sys.executable, "-m", *program, "serve", "--config", str(self._config)]
        self._process: subprocess.Popen[bytes] | None = None
        self.settings.data_dir.mkdir(exist_ok=True, mode=0o700)
        database = Database(self.settings.database_url)
        try:
            self.key = database.change(
                lambda connection: create_key(connection, "default", "bench", ("read", "write", "chat"), None)
            )
        finally:
            database.close()

    @property
    def pid(self) -> int:
        """Of the server itself."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """As clients of OpenAI's API take it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start it, and do not wait."""
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1"}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """kill -9 of the server, its children left as they are."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    async def serving(self) -> None:
        """Wait until a request with a key is answered. Raises RuntimeError where the server has ended."""
        client, ends = Client(self.port), time.monotonic() + STARTS
        while True:
            try:
                answer = await client.ask(head("GET", "/v1/fine_tuning/jobs?limit=1", self.key))
                if answer.status == 200:
                    client.drop()
                    return
            except (OSError, EOFError):
                pass
            if time.monotonic() > ends or (self._process and self._process.poll() is not None):
                raise RuntimeError(f"the server does not answer:\n{self.log()[-2000:]}")
            await asyncio.sleep(0.01)

    def log(self) -> str:
        """All that it wrote."""
        return (self.folder / "server.log").read_text("utf-8", "replace")

    def database(self) -> Database:
        """Its database, opened besides; close it."""
        return Database(self.settings.database_url)

    def __enter__(self) -> Self:
        self.start()
        try:
            asyncio.run(self.serving())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def remove(self) -> None:
        """Delete its folder, which also ends its waiting trainers."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
