"""Grades in worker processes: no completion, and no grader, can hang or bring down the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sharpen.config.graders import Multi, Plugin, SingleGrader
from sharpen.errors import ConfigError
from sharpen.graders.base import Grader, completion_fault, finite, grader_fault, repeatable
from sharpen.graders.multi import combine
from sharpen.sandbox.workers import Closing, Outcome, WorkerPool
from sharpen.types import Example, Grade, Sample

Pair = tuple[Example, Sample]


class GraderPool(Closing):
    """One grader, in `workers` processes (two, or one on a single core), started when first needed.

    The graders of a `multi` share the workers; each has its own time limit and answers for its own faults.
    `function` takes the place of the one that a `Plugin` names in `use`; it travels by value when
    it comes from a notebook, and is imported when it stands in a module.
    """

    def __init__(
        self, config: SingleGrader | Multi, *, function: Callable[..., Any] | None = None, workers: int | None = None
    ) -> None:
        if function is not None and not isinstance(config, Plugin):
            raise ConfigError("only a plugin grader takes a function", path="grader", value=config)
        self.name: str = config.name or getattr(config, "type", type(config).__name__)
        self._formula = config.formula() if isinstance(config, Multi) else None
        self._parts: Mapping[str, SingleGrader] = config.graders if isinstance(config, Multi) else {self.name: config}
        self._pool = WorkerPool(_prepare, (self._parts, function), size=workers)

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The grades, in the order of the pairs. Raises GraderError when the grader cannot be built."""
        columns = await asyncio.gather(*(self._grade(name, pairs) for name in self._parts))
        if self._formula is None:
            return columns[0]
        rows = zip(*columns, strict=True)
        return [combine(dict(zip(self._parts, row, strict=True)), self._formula) for row in rows]

    async def start(self) -> None:
        """Build the grader in every worker now. Raises GraderError when that fails."""
        await self._pool.start()

    def repeatable(self, grade: Grade) -> bool:
        """Whether this grader would surely grade so again; foreign code may roll dice or ask a server."""
        return all(part.trusted for part in self._parts.values()) and repeatable(grade)

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()

    async def _grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        """What one of the graders says of each pair."""
        config = self._parts[name]
        outcomes = await self._pool.map([(name, pair) for pair in pairs], config.time_limit)
        return [_read(outcome, config) for outcome in outcomes]


def _read(outcome: Outcome, config: SingleGrader) -> Grade:
    kind = "other_error" if config.trusted else "python_grader_runtime_error"
    if outcome.kind == "value":
        return finite(outcome.value, kind)
    if outcome.kind != "exception" and config.trusted:
        return completion_fault(outcome.kind, outcome.detail)
    return grader_fault(kind, outcome.detail)


def _prepare(
    configs: Mapping[str, SingleGrader], function: Callable[..., Any] | None
) -> Callable[[tuple[str, Pair]], Grade]:
    """In the worker: the graders as one plain function of a grader's name and a pair; they share one event loop."""
    graders = {name: _build(config, function) for name, config in configs.items()}
    runner = asyncio.Runner()

    def work(job: tuple[str, Pair]) -> Grade:
        name, pair = job
        return runner.run(graders[name].grade(*pair))

    return work


def _build(config: SingleGrader, function: Callable[..., Any] | None) -> Grader:
    if function is not None and isinstance(config, Plugin):
        from sharpen.graders.plugin import PluginGrader

        return PluginGrader(config, function)
    grader: Grader = config.build()
    return grader
