"""The database, SQLite or PostgreSQL: readers side by side, one writer that commits many requests at once.

A write is durable when its future is done. Writes that wait together share one transaction, each in a savepoint of
its own, so that 100 requests cost one fsync rather than 100.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any, TypeVar

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from sharpen.errors import RunError

T = TypeVar("T")

TOGETHER = 128
"""Writes that are committed at once, at most."""
READERS = 8
BUSY = 10_000
"""Milliseconds that SQLite waits for another process, such as `sharpen keys`."""


class Database:
    """Where all is kept that the server must not forget; `close` it."""

    def __init__(self, url: str) -> None:
        """Connects, and brings the tables up to date. Raises RunError."""
        self.url = url
        try:
            self._engine = create_engine(url, pool_size=READERS + 2, max_overflow=0)
            if self._engine.dialect.name == "sqlite":
                event.listen(self._engine, "connect", _prepare)
                event.listen(self._engine, "begin", _begin)
            self._writing = self._engine.execution_options(writes=True)
            self._migrate()
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise RunError(
                f"the database cannot be opened: {str(error).splitlines()[0]}",
                value=shown(url),
                remedy="Look at --database: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME",
            ) from error
        self._readers = ThreadPoolExecutor(READERS, "reader")
        self._waiting: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._writer.start()

    async def read(self, look: Callable[[Connection], T]) -> T:
        """What a function finds in one snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.look, look)

    def look(self, look: Callable[[Connection], T]) -> T:
        """`read`, from a thread that may wait."""
        with self._engine.connect() as connection:
            return look(connection)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Make a change, all of it or, where it raises, nothing; it is on the disk when this returns."""
        return await asyncio.wrap_future(self.submit(change))

    def change(self, change: Callable[[Connection], T]) -> T:
        """`write`, from a thread that may wait."""
        return self.submit(change).result()

    def submit(self, change: Callable[[Connection], T]) -> Future[T]:
        """A change that is made in its turn, in the caller's context: the audit log asks for the request's id."""
        future: Future[T] = Future()
        context = copy_context()
        self._waiting.put((lambda connection: context.run(change, connection), future))
        return future

    def close(self) -> None:
        """Make what waits, then let go."""
        self._waiting.put(None)
        self._writer.join()
        self._readers.shutdown()
        self._engine.dispose()

    def _write(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            ends = False
            while len(batch) < TOGETHER and not ends:
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
                ends = entry is None
                batch += [entry] if entry is not None else []
            self._commit([entry for entry in batch if entry[1].set_running_or_notify_cancel()])
            if ends:
                return

    def _commit(self, batch: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        done: list[tuple[Future[Any], Any]] = []
        try:
            with self._writing.begin() as connection:
                for change, future in batch:
                    try:
                        with connection.begin_nested():
                            done.append((future, change(connection)))
                    except Exception as error:  # the caller's, whose savepoint is rolled back
                        future.set_exception(error)
        except Exception as error:  # nothing of the batch is on the disk
            for future, _ in done:
                future.set_exception(error)
            return
        for future, result in done:
            future.set_result(result)

    def _migrate(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._writing.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(7355608)"))  # two servers may start at once
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def shown(url: str) -> str:
    """The address of a database without its password."""
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY}", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
