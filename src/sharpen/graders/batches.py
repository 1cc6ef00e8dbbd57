"""Graders that are called with many attempts at once: the operator's own code, in worker processes.

A call is one job: its time limit, its exceptions and its crashes are those of all attempts in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sharpen.config.graders.adapters import Batched
from sharpen.graders.base import finite, grader_fault
from sharpen.graders.plugin import FAULT
from sharpen.sandbox.workers import Outcome, WorkerPool
from sharpen.types import Example, Grade, Sample

Pair = tuple[Example, Sample]
T = TypeVar("T")


class WholeBatch(Protocol):
    """Scores all attempts of a call together; what it raises is a fault of the grader for each of them."""

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """A grade for each pair, in order."""
        ...


class Batches:
    """One such grader, built in a worker: in one, for a call sees all there is, or in several where it is split."""

    def __init__(self, config: Batched, workers: int | None) -> None:
        self._config = config
        self._pool = WorkerPool(_prepare, (config,), size=workers if config.max_batch else 1)

    async def grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        """The grades, in the order of the pairs. Raises GraderError when the grader cannot be built."""
        batches = split(pairs, self._config.max_batch)
        outcomes = await self._pool.map(batches, self._config.time_limit)
        return [grade for batch, outcome in zip(batches, outcomes, strict=True) for grade in _read(outcome, len(batch))]

    async def start(self) -> None:
        """Build the grader now. Raises GraderError when that fails."""
        await self._pool.start()

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()


def split(rows: Sequence[T], most: int | None) -> list[Sequence[T]]:
    """The rows in order, in parts of at most so many; all in one where there is no limit."""
    size = most or len(rows)
    return [rows[begin : begin + size] for begin in range(0, len(rows), size or 1)]


def _read(outcome: Outcome, count: int) -> list[Grade]:
    if outcome.kind != "value":
        return [grader_fault(FAULT, outcome.detail)] * count
    return [finite(grade, FAULT) for grade in outcome.value]


def _prepare(config: Batched) -> Callable[[Sequence[Pair]], list[Grade]]:
    """In the worker: the grader as a plain function of a batch."""
    grader: WholeBatch = config.build()
    runner = asyncio.Runner()
    return lambda pairs: runner.run(grader.grade_many(pairs))
