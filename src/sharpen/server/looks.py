"""Looks at files of rows: small ones in a thread, larger ones in a process of their own; none twice at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from sharpen.errors import DataError
from sharpen.server.errors import APIError
from sharpen.server.rows import Method, check, shared

HERE = 2**20
"""Bytes of a file that is looked at in a thread; a larger one would hold this process too long."""

LARGE = 2**24
"""Bytes of a file that takes long, and for which others do not wait."""

log = logging.getLogger(__name__)


class Looks:
    """The looks at files that go on now: who asks for the same waits for the same; of the large files one is read at
    a time, and of the others."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._large = asyncio.Semaphore(1)
        self._other = asyncio.Semaphore(1)

    async def found(self, name: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """What the look `name` finds, which may be under way already."""
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.ensure_future(_as_coroutine(work))
            task.add_done_callback(lambda _: self._running.pop(name, None))
        return await asyncio.shield(task)

    async def look(self, method: Method, path: Path, training: Path | None = None) -> Any:
        """The JSON of `check`, or with a training file of `shared`. Raises DataError where a file is not there."""
        paths = [path] if training is None else [path, training]
        size = await asyncio.to_thread(_size, paths)
        if size <= HERE:
            if training is not None:
                return await asyncio.to_thread(shared, path, training, method)
            return (await asyncio.to_thread(check, path, method)).as_json()
        async with self._large if size > LARGE else self._other:
            return await _outside(method, paths)


async def _as_coroutine(work: Callable[[], Awaitable[Any]]) -> Any:
    return await work()


async def _outside(method: Method, paths: Sequence[Path]) -> Any:
    """`rows.main` in a process of its own."""
    arguments = [str(paths[0]), method, *(str(path) for path in paths[1:])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sharpen.server.rows", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        log.error("the look at a file ended with %s: %s", process.returncode, said.decode("utf-8", "replace")[-2000:])
        told = "The file could not be looked at now; ask again in a minute."
        raise APIError(503, told, code="file_check_failed", headers={"Retry-After": "60"})
    return json.loads(out)


def _size(paths: Sequence[Path]) -> int:
    try:
        return sum(path.stat().st_size for path in paths)
    except OSError as error:
        raise DataError("cannot read the file", value=error.strerror) from error
