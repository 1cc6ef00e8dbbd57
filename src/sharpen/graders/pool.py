"""Grades from elsewhere: no completion, and no grader, can hang or bring down the run, or reach out of it.

Our own graders work in jails, for what they read is foreign; the operator's functions (`plugin`, `rubric`, and whole
batches at a time `trl` and `batch_endpoint`) in worker processes with the operator's rights; `python` and `code_tests`
run foreign programs in jails of their own; what asks a server or a model does so here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sharpen.config.graders import Multi, Plugin, SingleGrader, parts
from sharpen.config.graders.adapters import Batched
from sharpen.config.graders.remote import Remote
from sharpen.errors import ConfigError
from sharpen.graders.base import BatchGrader, Grader, JailGrader, completion_fault, finite, grader_fault, repeatable
from sharpen.graders.batches import Batches
from sharpen.graders.multi import combine
from sharpen.plugins import load
from sharpen.runs.ledger import Ledger
from sharpen.sandbox.run import SandboxUnavailable
from sharpen.sandbox.workers import Closing, Outcome, Pool, WorkerPool
from sharpen.types import Example, Fault, Grade, Sample

Pair = tuple[Example, Sample]


class GraderPool(Closing):
    """One grader, in `workers` processes (two, or one on a single core), started when first needed.

    The graders of a `multi` share the workers; each has its own time limit and answers for its own faults.
    `function` takes the place of the one that a `Plugin` names in `use`; it travels by value when
    it comes from a notebook, and is imported when it stands in a module. `ledger` keeps what judges answer and cost.
    """

    def __init__(
        self,
        config: SingleGrader | Multi,
        *,
        function: Callable[..., Any] | None = None,
        workers: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if function is not None and not isinstance(config, Plugin):
            raise ConfigError("only a plugin grader takes a function", path="grader", value=config)
        self.name: str = config.name or getattr(config, "type", type(config).__name__)
        self._formula = config.formula() if isinstance(config, Multi) else None
        self._parts = parts(config)
        self._doors: dict[str, _Door] = {}
        alone = {name: part for name, part in self._parts.items() if not isinstance(part, Batched)}
        for place in ("jail", "process"):
            own = {name: part for name, part in alone.items() if part.place == place}
            if own:
                self._doors |= dict.fromkeys(own, _Workers(own, function, place == "jail", workers))
        for name, part in self._parts.items():
            if isinstance(part, Batched) and part.place == "process":
                self._doors[name] = Batches(part, workers)
            if part.place == "parent":
                self._doors[name] = _Jails(part, workers)
            if part.place == "here":
                self._doors[name] = _Here(part, ledger or Ledger())

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The grades, in the order of the pairs. Raises GraderError when the grader cannot be built."""
        columns = await asyncio.gather(*(self._grade(name, pairs) for name in self._parts))
        if self._formula is None:
            return columns[0]
        rows = zip(*columns, strict=True)
        return [combine(dict(zip(self._parts, row, strict=True)), self._formula) for row in rows]

    async def start(self) -> None:
        """Build the grader in every worker now. Raises GraderError when that fails."""
        for door in set(self._doors.values()):
            await door.start()

    def repeatable(self, grade: Grade) -> bool:
        """Whether this grader would surely grade so again; foreign code may roll dice or ask a server."""
        return all(part.place == "jail" for part in self._parts.values()) and repeatable(grade)

    def close(self) -> None:
        """Kill the workers."""
        for door in set(self._doors.values()):
            door.close()

    async def _grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        """What one of the graders says of each pair."""
        return await self._doors[name].grade(name, pairs)


class _Door(Protocol):
    """Where grades come from."""

    async def grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]: ...

    async def start(self) -> None: ...

    def close(self) -> None: ...


class _Workers:
    """Graders that are built in workers, all of them in each."""

    def __init__(
        self,
        configs: Mapping[str, SingleGrader],
        function: Callable[..., Any] | None,
        jailed: bool,
        workers: int | None,
    ) -> None:
        self._configs = configs
        modules = {config.runtime.partition(":")[0] for config in configs.values()}
        ours = ["sharpen.graders.pool", *sorted(name for name in modules if name.startswith("sharpen."))]
        self._pool = WorkerPool(_prepare, (configs, function), size=workers, preload=ours if jailed else None)

    async def grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        config = self._configs[name]
        outcomes = await self._pool.map([(name, pair) for pair in pairs], config.time_limit)
        return [_read(outcome, config) for outcome in outcomes]

    async def start(self) -> None:
        await self._pool.start()

    def close(self) -> None:
        self._pool.close()


class _Jails:
    """A grader that runs foreign programs; it stays here, and they in jails."""

    def __init__(self, config: SingleGrader, workers: int | None) -> None:
        self._grader: JailGrader[Any] = config.build()
        self._pool = Pool(self._grader.worker, size=workers)

    async def grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        return await self._pool.each(self._one, pairs)

    async def start(self) -> None:
        await self._pool.start()

    def close(self) -> None:
        self._pool.close()

    def _one(self, worker: Any, pair: Pair) -> Grade:
        try:
            return self._grader.grade(worker, *pair)
        except SandboxUnavailable as error:
            if worker.alive():
                raise
            return grader_fault("python_grader_server_error", str(error))


class _Here:
    """A grader that asks a server or a model."""

    def __init__(self, config: SingleGrader, ledger: Ledger) -> None:
        needs = (config, ledger) if isinstance(config, Remote) else (config,)
        self._grader: BatchGrader = load(config.runtime)(*needs)

    async def grade(self, name: str, pairs: Sequence[Pair]) -> list[Grade]:
        return [finite(grade, "other_error") for grade in await self._grader.grade_many(pairs)]

    async def start(self) -> None:
        await self._grader.start()

    def close(self) -> None:
        self._grader.close()


def _read(outcome: Outcome, config: SingleGrader) -> Grade:
    ours = config.place == "jail"
    kind = "other_error" if ours else "python_grader_runtime_error"
    if outcome.kind == "value":
        try:
            score, metrics, explanation, fault = outcome.value
            return finite(Grade(score, metrics, str(explanation), Fault(*fault) if fault else None), kind)
        except (TypeError, ValueError, AttributeError) as error:  # only a library that was broken into says such things
            return grader_fault(kind, f"no grade: {error}")
    if outcome.kind != "exception" and ours:
        return completion_fault(outcome.kind, outcome.detail)
    return grader_fault(kind, outcome.detail)


def _prepare(
    configs: Mapping[str, SingleGrader], function: Callable[..., Any] | None
) -> Callable[[tuple[str, Pair]], Any]:
    """In the worker: the graders as one plain function of a grader's name and a pair; they share one event loop.

    A grade leaves as the plain values it consists of.
    """
    graders = {name: _build(config, function) for name, config in configs.items()}
    runner = asyncio.Runner()

    def work(job: tuple[str, Pair]) -> tuple[Any, ...]:
        name, pair = job
        grade = runner.run(graders[name].grade(*pair))
        fault = (grade.fault.kind, grade.fault.detail) if grade.fault else None
        return grade.score, dict(grade.metrics), grade.explanation, fault

    return work


def _build(config: SingleGrader, function: Callable[..., Any] | None) -> Grader:
    if function is not None and isinstance(config, Plugin):
        from sharpen.graders.plugin import PluginGrader

        return PluginGrader(config, function)
    grader: Grader = config.build()
    return grader
