"""A worker process, and the requests that are with it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from itertools import count
from typing import Any

from sharpen.server.environment import inherited
from sharpen.server.errors import APIError
from sharpen.server.serving.pieces import Ask, Done, Piece, Said, Started

COMMAND: Sequence[str] = (sys.executable, "-m", "sharpen.server.worker")
"""What is started."""
LINE = 64 << 20
"""Bytes of a line that a worker may write."""
LOADING = 600.0
"""Seconds until a model must be loaded."""
SILENT = 300.0
"""Seconds without a word, while somebody waits, after which a worker is taken for dead."""
GRACE = 3.0
"""Seconds that a worker has to end by itself."""

log = logging.getLogger("sharpen.server.workers")


class Unable(Exception):
    """The model cannot be loaded: a sentence for the operator."""


def gone(name: str, seconds: int = 2) -> APIError:
    """503: the worker died under a request."""
    return APIError(
        503,
        f"The model {name!r} stopped in the middle of this request; it starts anew with the next one. Send it again.",
        code="model_crashed",
        headers={"Retry-After": str(seconds)},
    )


class Link:
    """A running worker. `start` makes one."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        """Of the model, for errors and the log."""
        self.process = process
        self.context: int | None = None
        self.used = time.monotonic()
        """When it last said something or was asked."""
        self._waiting: dict[str, asyncio.Queue[Piece | APIError]] = {}
        self._numbers = count()
        self._last: deque[str] = deque(maxlen=20)
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._overhear())]

    @classmethod
    async def start(cls, name: str, model: str, threads: int) -> Link:
        """A worker that has loaded the model. Raises Unable."""
        environment = {**inherited(threads), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        options = ("--model", model, "--threads", str(threads), "--parent", str(os.getpid()))
        process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *options,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment,
            limit=LINE,
            start_new_session=True,  # signals to the server's group are the server's to pass on
        )
        link = cls(name, process)
        try:
            await asyncio.wait_for(link._ready, LOADING)
        except BaseException as error:
            await link.stop()
            if isinstance(error, TimeoutError):
                raise Unable(f"not loaded within {LOADING:g} s") from None
            raise
        return link

    @property
    def busy(self) -> int:
        """How many requests are with it."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.returncode is None and self._ready.done() and not self._tasks[0].done()

    @property
    def silent(self) -> bool:
        """Whether it has said nothing for so long, though somebody waits, that it hangs."""
        return bool(self._waiting) and time.monotonic() - self.used > SILENT

    async def ask(self, ask: Ask) -> AsyncGenerator[Piece, None]:
        """The pieces of the answer. Raises APIError; leaving early cancels the request."""
        id = str(next(self._numbers))
        pieces: asyncio.Queue[Piece | APIError] = asyncio.Queue()
        self._waiting[id] = pieces
        if self.busy == 1:
            self.used = time.monotonic()
        try:
            self._send({"ask": id, **ask.as_json()})
            while True:
                piece = await pieces.get()
                if isinstance(piece, APIError):
                    raise piece
                if isinstance(piece, Done):
                    del self._waiting[id]
                yield piece
                if isinstance(piece, Done):
                    return
        finally:
            if self._waiting.pop(id, None) is not None and self.alive:
                self._send({"cancel": id})

    async def stop(self) -> None:
        """End the process: by closing its stdin, else by force."""
        if self.process.stdin:
            self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), GRACE)
        except TimeoutError:
            self.kill()
            await self.process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def _send(self, line: dict[str, Any]) -> None:
        assert self.process.stdin
        if self.process.stdin.is_closing():
            raise gone(self.name)
        self.process.stdin.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    async def _read(self) -> None:
        assert self.process.stdout
        try:
            while line := await self.process.stdout.readline():
                self.used = time.monotonic()
                self._hear(json.loads(line))
        except ValueError:
            log.exception("worker of %s: what it says is no line of JSON", self.name)
            self.kill()
        finally:
            self._fail()

    def _hear(self, line: dict[str, Any]) -> None:
        match line:
            case {"said": said}:
                for id, choice, delta, logprobs, finish in said:
                    self._tell(id, Said(choice, delta, logprobs, finish))
            case {"started": id, "prompt_tokens": tokens}:
                self._tell(id, Started(tokens))
            case {"done": id, "usage": usage}:
                self._tell(id, Done(usage))
            case {"failed": id, "error": error}:
                self._tell(id, _error(self.name, error))
            case {"ready": ready}:
                self.context = ready["context"]
                if not self._ready.done():
                    self._ready.set_result(None)
            case {"unable": said} if not self._ready.done():
                self._ready.set_exception(Unable(said))

    def _tell(self, id: str, piece: Piece | APIError) -> None:
        if queue := self._waiting.get(id):
            queue.put_nowait(piece)

    def _fail(self) -> None:
        """Tell everybody who waits that there will be nothing."""
        for pieces in self._waiting.values():
            pieces.put_nowait(gone(self.name))
        if not self._ready.done():
            self._ready.set_exception(Unable(f"its process ended: {' | '.join(self._last) or 'without a word'}"))
            self._ready.exception()  # it is not an error that nobody asks

    async def _overhear(self) -> None:
        """What libraries and a dying interpreter write."""
        assert self.process.stderr
        while line := await self.process.stderr.readline():
            said = line.decode(errors="replace").rstrip()
            self._last.append(said)
            log.debug("worker of %s: %s", self.name, said)


def _error(name: str, error: dict[str, Any]) -> APIError:
    """A worker's error as a client is told; what went wrong inside is the log's."""
    if error["status"] >= 500:
        log.error("worker of %s: %s", name, error["message"])
        return APIError(500, "The model failed on this request.", code=error["code"])
    return APIError(error["status"], error["message"], code=error["code"], param=error.get("param"))
