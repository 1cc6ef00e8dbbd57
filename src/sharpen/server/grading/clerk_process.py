"""The process that grades for the server: one answer at a time, asked and answered in lines of JSON.

It builds graders as a run does. Foreign programs and our own readers of foreign text work in jails that are its
children; what it is sent never runs here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from sharpen.config.graders import Grader, Multi, SingleGrader, parts
from sharpen.errors import SharpenError
from sharpen.graders.base import grader_fault
from sharpen.graders.multi import combine
from sharpen.graders.plugin import FAULT
from sharpen.graders.pool import GraderPool
from sharpen.runs.ledger import Ledger
from sharpen.sandbox import linux, plan
from sharpen.sandbox.run import SandboxUnavailable
from sharpen.server.grading.tokens import VARIABLE
from sharpen.types import Example, Grade, Sample

SECONDS = 120.0
"""The most that one grader may take, whatever it says itself: OpenAI's limit."""
JAILED = ("jail", "parent")

Answer = dict[str, Any]
READER: TypeAdapter[Any] = TypeAdapter(Grader)


@dataclass(frozen=True)
class Told:
    """What a grader says, with how long it took and what its judge used up."""

    grade: Grade
    seconds: float
    tokens: int = 0

    def plain(self) -> Answer:
        """As JSON."""
        fault = self.grade.fault
        return {
            "score": self.grade.score,
            "metrics": dict(self.grade.metrics),
            "fault": [fault.kind, fault.detail] if fault else None,
            "seconds": self.seconds,
            "tokens": self.tokens,
        }


class Desk:
    """A grader, ready to grade; kept while the same one is asked for again."""

    def __init__(self, config: SingleGrader | Multi) -> None:
        self._formula = config.formula() if isinstance(config, Multi) else None
        self._parts = {name: _limited(part) for name, part in parts(config).items()}
        self._ledgers = {name: Ledger() for name in self._parts}
        self._pools: dict[str, GraderPool] = {}

    async def answer(self, example: Example, sample: Sample) -> Answer:
        """What it says. Raises SandboxUnavailable."""
        jailed = any(part.place in JAILED for part in self._parts.values())
        isolation = await asyncio.to_thread(plan.isolation) if jailed else None
        told = dict(zip(self._parts, await asyncio.gather(*self._asked(example, sample)), strict=True))
        whole = next(iter(told.values())).grade
        if self._formula is not None:
            whole = combine({name: one.grade for name, one in told.items()}, self._formula)
        return {
            "whole": Told(whole, 0.0).plain(),
            "parts": {name: one.plain() for name, one in told.items()},
            "isolation": isolation,
        }

    def close(self) -> None:
        """End its processes."""
        for pool in self._pools.values():
            pool.close()

    def _asked(self, example: Example, sample: Sample) -> list[Any]:
        return [self._one(name, part, example, sample) for name, part in self._parts.items()]

    async def _one(self, name: str, part: SingleGrader, example: Example, sample: Sample) -> Told:
        ledger = self._ledgers[name]
        spent, began = sum(one.tokens for one in ledger.spent.values()), time.perf_counter()
        try:
            if name not in self._pools:
                self._pools[name] = GraderPool(part, workers=1, ledger=ledger)
            with ledger.forgetful():  # who asks twice wants to know whether the judge says the same
                (grade,) = await self._pools[name].grade_many([(example, sample)])
        except SandboxUnavailable:
            raise
        except SharpenError as error:  # it cannot be built: a package that is not installed, a key that is not set
            grade = grader_fault(FAULT if part.type == "python" else "other_error", str(error))  # type: ignore[attr-defined]
        used = sum(one.tokens for one in ledger.spent.values()) - spent
        return Told(grade, time.perf_counter() - began, used)


class Clerk:
    """Answers requests; the last grader stays built."""

    def __init__(self) -> None:
        self._key = ""
        self._desk: Desk | None = None

    async def answer(self, request: Mapping[str, Any]) -> Answer:
        """What a request is answered with; never raises for what a client said."""
        key = json.dumps([request["grader"], request["token"]], sort_keys=True)
        if key != self._key or self._desk is None:
            self.close()
            os.environ[VARIABLE] = request["token"]
            self._key, self._desk = key, Desk(READER.validate_python(request["grader"]))
        example = Example("graders/run", (), request["item"])
        try:
            return await self._desk.answer(example, Sample(request["sample"]))
        except SandboxUnavailable as error:
            self.close()
            return {"unavailable": str(error)}

    def close(self) -> None:
        """End what was built."""
        if self._desk is not None:
            self._desk.close()
        self._key, self._desk = "", None


def _limited(part: SingleGrader) -> SingleGrader:
    return part.model_copy(update={"time_limit": min(part.time_limit, SECONDS)})


def main() -> None:
    """Answer lines until there are no more."""
    if sys.platform == "linux":
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer
    clerk = Clerk()
    with asyncio.Runner() as runner:
        for line in sys.stdin.buffer:
            answer = runner.run(clerk.answer(json.loads(line)))
            out.write(json.dumps(answer).encode() + b"\n")
    clerk.close()


if __name__ == "__main__":
    main()
