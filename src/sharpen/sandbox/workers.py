"""Pools of killable one-thread processes: a job that hangs or crashes costs its worker, nothing else.

A worker process keeps a foreign function from *our* process, memory and clock; it is no jail: the function has the
operator's rights. A jailed worker has none.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import cloudpickle  # type: ignore[import-untyped]

from sharpen.errors import GraderError
from sharpen.sandbox.jailed import JailedWorker
from sharpen.sandbox.outcome import Outcome
from sharpen.sandbox.process import WorkerProcess

__all__ = ["Closing", "Outcome", "Pool", "WorkerPool", "default_workers"]


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


class Worker(Protocol):
    """What a pool holds: something that can die, and can be ended."""

    def alive(self) -> bool:
        """Whether it can be given a job."""
        ...

    def terminate(self) -> None:
        """End it; from any thread."""
        ...

    def kill(self) -> None:
        """`terminate`, and close its files."""
        ...


W = TypeVar("W", bound=Worker)
J = TypeVar("J")
R = TypeVar("R")


class Pool(Closing, Generic[W]):
    """`size` workers that `make` starts and `prepare` prepares when first needed, and again after they died.

    A pool may be used from any event loop, from several at once, and after a fork (the copy makes workers of its own).
    """

    def __init__(
        self, make: Callable[[], W], prepare: Callable[[W], None] = lambda worker: None, *, size: int | None = None
    ) -> None:
        self.size = size or default_workers()
        self._make = make
        self._prepare = prepare
        self._closed = False
        self._open()

    async def each(self, function: Callable[[W, J], R], jobs: Sequence[J]) -> list[R]:
        """`function(worker, job)` of every job, in their order. Raises GraderError when the pool is closed."""
        return await self._submit(lambda job: self._run(function, job), jobs)

    async def start(self) -> None:
        """Make every worker now, to learn early whether they can be made. Raises GraderError."""
        await self._submit(self._start, range(self.size))

    def close(self) -> None:
        """Kill the workers, at work or not. Jobs under way end with an error."""
        self._closed = True
        if self._owner == os.getpid():
            self._threads.shutdown(wait=False, cancel_futures=True)
            _terminate(self._slots)
            self._threads.shutdown()
        for slot in self._slots:
            slot.release()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._slots: list[_Slot[W]] = [_Slot() for _ in range(self.size)]
        self._idle = deque(self._slots)
        # Threads start the workers and wait for them. They live as long as the pool: Linux kills a
        # worker with the *thread* that started it.
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="sharpen-worker")
        weakref.finalize(self, _terminate, self._slots)

    async def _submit(self, function: Callable[[J], R], jobs: Sequence[J]) -> list[R]:
        if self._closed:
            raise GraderError("the pool of workers is closed")
        if self._owner != os.getpid():
            self._open()
        results: list[R] = [None] * len(jobs)  # type: ignore[list-item]
        waiting = deque(enumerate(jobs))

        def work() -> None:  # a thread takes one job after another: a future each would cost more than a grade
            while waiting:
                try:
                    place, job = waiting.popleft()
                except IndexError:  # another thread took the last
                    return
                results[place] = function(job)

        futures = [self._threads.submit(work) for _ in range(min(self.size, len(jobs)))]
        try:
            await asyncio.gather(*map(asyncio.wrap_future, futures))
        except BaseException:
            waiting.clear()
            for future in futures:
                future.cancel()
            raise
        return results

    def _run(self, function: Callable[[W, J], R], job: J) -> R:
        slot = self._idle.pop()  # the one used last is the warmest
        try:
            result = function(self._ready(slot), job)
        finally:
            self._idle.append(slot)
        if self._closed:
            raise GraderError("the pool of workers was closed while it was at work")
        return result

    def _start(self, _: int) -> None:
        slot = self._idle.popleft()  # first in, first out: each call meets another slot
        try:
            self._ready(slot)
        finally:
            self._idle.append(slot)

    def _ready(self, slot: _Slot[W]) -> W:
        if slot.worker is None or not slot.worker.alive():
            slot.release()
            slot.worker = self._make()
            self._prepare(slot.worker)
        return slot.worker


class WorkerPool(Closing):
    """Runs jobs in `size` processes, with the function that `factory(*arguments)` returns in each.

    The factory and its arguments travel by cloudpickle, so both may come from a notebook. `preload`, the names of the
    modules it needs, asks for jails: our own code, at work on foreign data; then answers are plain values. Without it
    the function has the operator's rights.
    """

    def __init__(
        self,
        factory: Callable[..., Callable[[Any], Any]],
        arguments: Sequence[Any] = (),
        *,
        size: int | None = None,
        start_limit: float = 120.0,
        preload: Sequence[str] | None = None,
    ) -> None:
        payload = cloudpickle.dumps((factory, tuple(arguments)))

        def make() -> WorkerProcess | JailedWorker:
            return WorkerProcess() if preload is None else JailedWorker(preload)

        self._pool = Pool(make, lambda worker: worker.prepare(payload, start_limit), size=size)

    @property
    def size(self) -> int:
        """How many workers there are at most."""
        return self._pool.size

    async def map(self, jobs: Sequence[Any], time_limit: float) -> list[Outcome]:
        """The outcomes of the jobs, in their order; each job has `time_limit` seconds to itself.

        Raises GraderError when a worker cannot start, or the pool is closed.
        """
        return await self._pool.each(lambda worker, job: worker.ask(job, time_limit), jobs)

    async def start(self) -> None:
        """Start every worker now, to learn early whether they can. Raises GraderError."""
        await self._pool.start()

    def close(self) -> None:
        """Kill the workers, at work or not. A `map` under way ends with an error."""
        self._pool.close()


class _Slot(Generic[W]):
    """A place for one worker."""

    def __init__(self) -> None:
        self.worker: W | None = None

    def release(self) -> None:
        """Kill the worker, if there is one, and forget it."""
        worker, self.worker = self.worker, None
        if worker:
            worker.kill()


def _terminate(slots: Sequence[_Slot[Any]]) -> None:
    for slot in slots:
        if slot.worker:
            slot.worker.terminate()
