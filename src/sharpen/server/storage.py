"""Clients' files on the disk: received in constant memory, durable before they are acknowledged, named by us alone.

A file is written below `incoming`, and renamed to its place when it is whole. Before that, and before it is deleted,
an empty mark with its id is made below `marks`: at the next start a marked file that the database does not know is
removed, so that no crash leaves a file without a row.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from sharpen.server import ids
from sharpen.server.errors import APIError

T = TypeVar("T")

BLOCK = 2**18
"""Bytes that are written at once, and that an upload holds in memory; before so many came it opens no file."""

SYNC = 2**26
"""Bytes after which what is written is forced to the disk, so that the last fsync is short."""

RESERVE = 2**28
"""Bytes of the disk that files leave free, for the database and the runs."""

JOINS = 2
"""Uploads whose parts are put together at a time, which keeps a thread for seconds each."""

FULL_RETRY = 60
"""Seconds after which a client may ask again when the disk is full."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Received(NamedTuple):
    """A file that is whole and on the disk, but not yet in its place."""

    path: Path
    bytes: int
    sha256: str


def place(id: str) -> Path:
    """Where a file has its place below the storage's folder."""
    assert ids.ID.fullmatch(id), id  # ours, never a client's
    return Path(id.rpartition("-")[2][:2], id)


class Storage:
    """The files below a folder; `incoming` takes new ones, `keep` puts them in their place."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder where it is not there."""
        self.folder = folder
        self._incoming = folder / "incoming"
        self._marks = folder / "marks"
        for one in (self._incoming, self._marks):
            one.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._threads = ThreadPoolExecutor(JOINS + 4, "files")
        self._made: set[Path] = set()
        self._joins = asyncio.Semaphore(JOINS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def path(self, id: str) -> Path:
        """Where a file has its place."""
        return self.folder / place(id)

    def lock(self, id: str) -> asyncio.Lock:
        """What who changes an object over several awaits must hold."""
        return self._locks.setdefault(id, asyncio.Lock())

    def locked(self) -> Sequence[str]:
        """The ids whose lock somebody holds."""
        return [id for id, lock in list(self._locks.items()) if lock.locked()]

    def incoming(self, limit: int, param: str = "file") -> Incoming:
        """A new file of at most `limit` bytes; `param`: what the client calls it."""
        return Incoming(self, self._incoming / secrets.token_hex(16), limit, param)

    async def thread(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk. Raises APIError 503 where it is full."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            if error.errno in _FULL:
                raise full() from error
            raise

    async def keep(self, received: Received, id: str) -> None:
        """Put a file in its place, durably; `settle` it when its row is written."""
        await self.thread(lambda: self._keep(received, id))

    async def write(self, id: str, text: str) -> Received:
        """A file of our own making, in its place; `settle` it when its row is written."""
        incoming = self.incoming(2**40)
        try:
            await incoming.write(text.encode())
            received = await incoming.finish()
            await self.keep(received, id)
        finally:
            incoming.discard()
        return received

    async def mark(self, gone: Iterable[str]) -> None:
        """Note that files are about to lose their rows, before these are deleted."""
        await self.thread(lambda: self._mark(gone))

    async def acknowledged(self, id: str, write: Awaitable[T]) -> T:
        """What a write of a kept file's row returns; where that is refused, the file is removed.

        After any other fault the row may be there or not: the next start of the server looks.
        """
        try:
            found = await write
        except APIError:
            await self.delete(id)
            raise
        await self.settle(id)
        return found

    async def settle(self, id: str) -> None:
        """Note that the row of a file is written."""
        await self.thread(lambda: (self._marks / id).unlink(missing_ok=True))

    async def delete(self, *gone: str) -> None:
        """Remove files that have no row (any more); those that are not there are left out."""
        await self.thread(lambda: self._delete(gone))

    @asynccontextmanager
    async def joined(self, parts: Sequence[str], limit: int) -> AsyncIterator[tuple[Received, str]]:
        """One file of the parts in their order, and its MD5; it is gone after the block unless it is kept."""
        incoming = self.incoming(limit)
        md5 = hashlib.md5(usedforsecurity=False)
        try:
            async with self._joins:
                await self.thread(lambda: incoming.take((self.path(part) for part in parts), md5.update))
            yield await incoming.finish(), md5.hexdigest()
        finally:
            incoming.discard()

    def room(self, wanted: int) -> None:
        """Raise APIError 503 where the disk has no place for so many bytes more."""
        if shutil.disk_usage(self.folder).free < wanted + RESERVE:
            raise full()

    def left(self) -> list[str]:
        """Remove what an earlier server was writing; the ids of the files that are marked."""
        for path in self._incoming.iterdir():
            path.unlink(missing_ok=True)
        return [path.name for path in self._marks.iterdir() if ids.ID.fullmatch(path.name)]

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _keep(self, received: Received, id: str) -> None:
        self._mark([id])
        place = self.path(id)
        if place.parent not in self._made:
            place.parent.mkdir(exist_ok=True, mode=0o700)
            sync_folder(self.folder)
            self._made.add(place.parent)
        received.path.rename(place)
        sync_folder(place.parent)

    def _mark(self, marked: Iterable[str]) -> None:
        for id in marked:
            (self._marks / id).touch(mode=0o600)

    def _delete(self, gone: Iterable[str]) -> None:
        for id in gone:
            self.path(id).unlink(missing_ok=True)
            (self._marks / id).unlink(missing_ok=True)


class Incoming:
    """A file that is being received: `write` until its end, then `finish`; `discard` it in any case."""

    def __init__(self, storage: Storage, path: Path, limit: int, param: str) -> None:
        self._param = param
        self._storage = storage
        self._path = path
        self._limit = limit
        self._file: BufferedWriter | None = None
        self._digest = hashlib.sha256()
        self._bytes = 0
        self._synced = 0
        self._waiting: list[bytes] = []
        self._held = 0

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises APIError: 413 beyond the limit, 503 where the disk is full."""
        self._count(len(data))
        self._waiting.append(data)
        self._held += len(data)
        if self._held >= BLOCK:
            await self._flush()

    async def finish(self) -> Received:
        """The file, on the disk. Raises APIError 503 where that is full."""
        data = self._taken()
        await self._storage.thread(lambda: self._end(data))
        return Received(self._path, self._bytes, self._digest.hexdigest())

    def take(self, parts: Iterable[Path], also: Callable[[bytes], None]) -> None:
        """Add whole files, from a thread; `also` sees their bytes too. Raises as `write`, and FileNotFoundError."""
        for part in parts:
            with part.open("rb") as file:
                while data := file.read(BLOCK):
                    self._count(len(data))
                    also(data)
                    self._put(data)

    def discard(self) -> None:
        """Remove the file, unless it has been put in its place."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._path.unlink(missing_ok=True)

    def _count(self, more: int) -> None:
        self._bytes += more
        if self._bytes > self._limit:
            raise too_large(self._bytes, self._limit, self._param)

    async def _flush(self) -> None:
        data = self._taken()
        await self._storage.thread(lambda: self._put(data))

    def _taken(self) -> bytes:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._held = 0
        return data

    def _put(self, data: bytes) -> BufferedWriter:
        if self._file is None:
            self._file = self._path.open("xb")
        self._digest.update(data)
        self._file.write(data)
        self._synced += len(data)
        if self._synced >= SYNC:
            self._synced = 0
            self._storage.room(0)
            self._file.flush()
            os.fdatasync(self._file.fileno())
        return self._file

    def _end(self, data: bytes) -> None:
        file = self._put(data)
        file.flush()
        os.fsync(file.fileno())
        file.close()


def too_large(seen: int, limit: int, param: str) -> APIError:
    """413: more bytes than may come."""
    return APIError(
        413,
        f"The limit of `{param}` is {limit} bytes, and here are {seen} or more. Send less at once.",
        code="file_too_large",
        param=param,
    )


def full() -> APIError:
    """503: the disk is full, which only the operator can mend."""
    return APIError(
        503,
        "The server's disk is full. Delete files that are not needed, or ask the operator for room.",
        code="insufficient_storage",
        headers={"Retry-After": str(FULL_RETRY)},
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
