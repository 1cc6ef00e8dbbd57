"""What a grader is, and the two kinds of fault.

A fault of the *completion* (unparsable, too slow to check) scores the minimum. A fault of the
*grader* (exception, invalid return) has no score at all: the rollout is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from sharpen.sandbox.workers import Worker
from sharpen.types import Example, Fault, Grade, Sample

MINIMUM = 0.0
"""The score of a completion at fault."""

UNREPEATABLE = frozenset({"timeout", "crashed", "oom", "exit", "other_error", "python_grader_runtime_error"})


class Grader(Protocol):
    """Scores one attempt at one example."""

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """What this grader says of the sample."""
        ...


class BatchGrader(Protocol):
    """Scores many attempts at once, in this process: it asks a server, or a model."""

    async def start(self) -> None:
        """Get ready. Raises GraderError."""
        ...

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        """What this grader says of each sample, in order."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


W = TypeVar("W", bound=Worker)


class JailGrader(Protocol[W]):
    """Runs foreign programs in jails, and scores what comes out of them. Blocking."""

    def worker(self) -> W:
        """The jails that one attempt at a time needs. Raises SandboxUnavailable where there can be none."""
        ...

    def grade(self, worker: W, example: Example, sample: Sample) -> Grade:
        """What this grader says of the sample. Raises SandboxUnavailable when the worker has died."""
        ...


def completion_fault(kind: str, detail: str, metrics: Mapping[str, float] | None = None) -> Grade:
    """The grade of a completion that is itself at fault: the minimum, with the cause."""
    return Grade(MINIMUM, metrics=metrics or {}, explanation=detail, fault=Fault(kind, detail))


def grader_fault(kind: str, detail: str) -> Grade:
    """The grade when the grader is at fault: no score, and the cause."""
    return Grade(None, explanation=detail, fault=Fault(kind, detail))


def repeatable(grade: Grade) -> bool:
    """Whether grading again would surely say the same; if not, the run writes the grade down before use."""
    return grade.fault is None or grade.fault.kind not in UNREPEATABLE


def finite(grade: Grade, kind: str) -> Grade:
    """The grade, if all its numbers are finite; else a grader's fault of this kind."""
    numbers = {"score": 0.0 if grade.score is None else grade.score, **grade.metrics}
    wrong = {name: value for name, value in numbers.items() if not math.isfinite(value)}
    return grader_fault(kind, f"not a finite number: {wrong}") if wrong else grade


def passed(grade: Grade, threshold: float | None) -> Grade:
    """The grade with `passed` among its metrics: 1 from the threshold on, else 0; as it is where there is none."""
    if threshold is None or grade.score is None:
        return grade
    metrics = {**grade.metrics, "passed": float(grade.score >= threshold)}
    return Grade(grade.score, metrics, grade.explanation, grade.fault)
