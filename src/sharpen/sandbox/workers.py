"""Killable one-thread worker processes: a job that hangs or crashes costs its worker, nothing else.

A worker keeps a foreign function from *our* process, memory and clock. It is not a jail: the
function has the operator's rights.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import cloudpickle  # type: ignore[import-untyped]

from sharpen.errors import GraderError
from sharpen.sandbox.outcome import Outcome
from sharpen.sandbox.process import WorkerProcess

__all__ = ["Closing", "Outcome", "WorkerPool", "default_workers"]


def default_workers() -> int:
    """Two, or one on a single core."""
    return min(2, os.cpu_count() or 1)


class Closing:
    """A context manager whose end is `close`."""

    def close(self) -> None:
        """Let go of what is held."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class WorkerPool(Closing):
    """Runs jobs in `size` processes, with the function that `factory(*arguments)` returns in each.

    The factory and its arguments travel by cloudpickle, so both may come from a notebook. Workers
    start when first needed, and again after they were killed. A pool may be used from any event
    loop, from several at once, and after a fork (the copy starts workers of its own).
    """

    def __init__(
        self,
        factory: Callable[..., Callable[[Any], Any]],
        arguments: Sequence[Any] = (),
        *,
        size: int | None = None,
        start_limit: float = 120.0,
    ) -> None:
        self.size = size or default_workers()
        self._payload = cloudpickle.dumps((factory, tuple(arguments)))
        self._start_limit = start_limit
        self._closed = False
        self._open()

    async def map(self, jobs: Sequence[Any], time_limit: float) -> list[Outcome]:
        """The outcomes of the jobs, in their order; each job has `time_limit` seconds to itself.

        Raises GraderError when a worker cannot start, or the pool is closed.
        """
        return await self._submit(lambda job: self._run(job, time_limit), jobs)

    async def start(self) -> None:
        """Start every worker now, to learn early whether they can. Raises GraderError."""
        await self._submit(self._start, range(self.size))

    def close(self) -> None:
        """Kill the workers, at work or not. A `map` under way ends with an error."""
        self._closed = True
        if self._owner == os.getpid():
            self._threads.shutdown(wait=False, cancel_futures=True)
            _terminate(self._slots)
            self._threads.shutdown()
        for slot in self._slots:
            slot.release()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._slots = [_Slot() for _ in range(self.size)]
        self._idle = deque(self._slots)
        # Threads start the workers and wait for them. They live as long as the pool: Linux kills a
        # worker with the *thread* that started it.
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="sharpen-worker")
        weakref.finalize(self, _terminate, self._slots)

    async def _submit(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        if self._closed:
            raise GraderError("the pool of workers is closed")
        if self._owner != os.getpid():
            self._open()
        futures = [self._threads.submit(function, job) for job in jobs]
        try:
            return await asyncio.gather(*map(asyncio.wrap_future, futures))
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def _run(self, job: Any, time_limit: float) -> Outcome:
        slot = self._idle.pop()  # the one used last is the warmest
        try:
            outcome = self._ready(slot).ask(job, time_limit)
        finally:
            self._idle.append(slot)
        if self._closed and outcome.kind == "crashed":
            raise GraderError("the pool of workers was closed while it was at work")
        return outcome

    def _start(self, _: int) -> None:
        slot = self._idle.popleft()  # first in, first out: each call meets another slot
        try:
            self._ready(slot)
        finally:
            self._idle.append(slot)

    def _ready(self, slot: _Slot) -> WorkerProcess:
        if slot.worker is None or not slot.worker.alive():
            slot.release()
            slot.worker = WorkerProcess()
            slot.worker.prepare(self._payload, self._start_limit)
        return slot.worker


class _Slot:
    """A place for one worker."""

    def __init__(self) -> None:
        self.worker: WorkerProcess | None = None

    def release(self) -> None:
        """Kill the worker, if there is one, and forget it."""
        worker, self.worker = self.worker, None
        if worker:
            worker.kill()


def _terminate(slots: list[_Slot]) -> None:
    for slot in slots:
        if slot.worker:
            slot.worker.terminate()
