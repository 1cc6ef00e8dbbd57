"""Grades in worker processes: no completion, and no grader, can hang or bring down the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from sharpen.config.graders import GraderConfig, Plugin
from sharpen.errors import ConfigError
from sharpen.graders.base import Grader, completion_fault, finite, grader_fault, repeatable
from sharpen.sandbox.workers import Outcome, WorkerPool
from sharpen.types import Example, Grade, Sample

Pair = tuple[Example, Sample]


class GraderPool:
    """One grader, in `workers` processes (two, or one on a single core), started when first needed.

    `function` takes the place of the one that a `Plugin` names in `use`; it travels by value when
    it comes from a notebook, and is imported when it stands in a module.
    """

    def __init__(
        self, config: GraderConfig, *, function: Callable[..., Any] | None = None, workers: int | None = None
    ) -> None:
        if function is not None and not isinstance(config, Plugin):
            raise ConfigError("only a plugin grader takes a function", path="grader", value=config)
        self.name: str = config.name or getattr(config, "type", type(config).__name__)
        self._config = config
        self._fault_kind = "other_error" if config.trusted else "python_grader_runtime_error"
        self._pool = WorkerPool(_prepare, (config, function), size=workers)

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The grades, in the order of the pairs. Raises GraderError when the grader cannot be built."""
        outcomes = await self._pool.map(pairs, self._config.time_limit)
        return [self._grade(outcome) for outcome in outcomes]

    async def start(self) -> None:
        """Build the grader in every worker now. Raises GraderError when that fails."""
        await self._pool.start()

    def repeatable(self, grade: Grade) -> bool:
        """Whether this grader would surely grade so again; foreign code may roll dice or ask a server."""
        return self._config.trusted and repeatable(grade)

    def close(self) -> None:
        """Kill the workers."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grade(self, outcome: Outcome) -> Grade:
        if outcome.kind == "value":
            return finite(outcome.value, self._fault_kind)
        if outcome.kind != "exception" and self._config.trusted:
            return completion_fault(outcome.kind, outcome.detail)
        return grader_fault(self._fault_kind, outcome.detail)


def _prepare(config: GraderConfig, function: Callable[..., Any] | None) -> Callable[[Pair], Grade]:
    """In the worker: the grader as a plain function. Its coroutines share one event loop."""
    if function is not None and isinstance(config, Plugin):
        from sharpen.graders.plugin import PluginGrader

        grader: Grader = PluginGrader(config, function)
    else:
        grader = config.build()
    runner = asyncio.Runner()
    return lambda pair: runner.run(grader.grade(*pair))
