"""Texts under a grader: scores, sub-scores, faults, and how long a grade takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from sharpen.config.graders import Grader
from sharpen.rl.advantages import SPREAD
from sharpen.runs.statistics import interval
from sharpen.stages.routing import Router
from sharpen.types import Example, Grade, Sample

ALONE = 20
"""So many grades are made one by one, to tell how long one takes ..."""

ALONE_SECONDS = 5.0
"""... or as many as fit in these seconds."""

BINS = 10
SLACK = 1e-9
"""A score so close to full marks has them."""


class Text(NamedTuple):
    """A text to grade as though it were the `place`-th completion of the example in row `row`.

    `fields` is the line of the file that it came from, where it came from one.
    """

    example: Example
    sample: Sample
    row: int
    place: int = 0
    fields: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Trial:
    """A text and its grade; `seconds` is how long that took where it was made alone."""

    text: Text
    grade: Grade
    seconds: float | None = None

    @property
    def score(self) -> float | None:
        """The grade's score; None where the grader failed."""
        return self.grade.score


class Bench:
    """Grades texts and keeps the time: the first few one by one, all others together."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._started = False
        self._alone: list[float] = []
        self._together = 0
        self._seconds = 0.0

    async def grade(self, texts: Sequence[Text]) -> list[Trial]:
        """A trial a text, in their order. Raises GraderError when a grader cannot be built."""
        if not self._started:
            await self._router.start()
            self._started = True
        done: list[Trial] = []
        for text in texts:
            if len(self._alone) >= ALONE or sum(self._alone) >= ALONE_SECONDS:
                break
            began = time.perf_counter()
            (made,) = await self._router.grade_many([(text.example, text.sample)])
            self._alone.append(time.perf_counter() - began)
            done.append(Trial(text, made, self._alone[-1]))
        rest = texts[len(done) :]
        began = time.perf_counter()
        grades = await self._router.grade_many([(text.example, text.sample) for text in rest]) if rest else []
        self._seconds += time.perf_counter() - began
        self._together += len(rest)
        return done + [Trial(text, made) for text, made in zip(rest, grades, strict=True)]

    def speed(self) -> dict[str, Any]:
        """Seconds of a grade that is made alone, and how many a second are made together."""
        median, p95 = np.percentile(self._alone, (50, 95)).tolist() if self._alone else (None, None)
        return {
            "alone": {"n": len(self._alone), "median": median, "p95": p95},
            "together": {
                "n": self._together,
                "seconds": self._seconds,
                "per_second": self._together / self._seconds if self._together else None,
            },
        }


class Marks:
    """Which score is full marks, by the grader of the example."""

    def __init__(self, graders: Mapping[str, Grader], threshold: float | None = None) -> None:
        self.full = {key: full_marks(config) if threshold is None else threshold for key, config in graders.items()}

    def reached(self, trial: Trial) -> bool:
        """Whether a text has them."""
        return trial.score is not None and trial.score >= self.full[trial.text.example.grader] - SLACK


def full_marks(config: Grader) -> float:
    """The score that says right: the top of the grader's `range` where it has one, else 1."""
    bounds = getattr(config, "range", None)
    return float(bounds[1]) if bounds else 1.0


def line(trial: Trial) -> dict[str, Any]:
    """A trial as plain values."""
    text, made = trial.text, trial.grade
    return {
        "id": text.example.id,
        "sample": text.place,
        "text": text.sample.text,
        "score": made.score,
        "metrics": dict(made.metrics),
        "explanation": made.explanation,
        "fault": {"kind": made.fault.kind, "detail": made.fault.detail} if made.fault else None,
        "seconds": trial.seconds,
    }


def overview(trials: Sequence[Trial]) -> dict[str, Any]:
    """Means with their intervals over rows, faults by kind and by whose they are, and the histogram of scores."""
    rows: dict[int, list[float]] = {}
    for trial in trials:
        if trial.score is not None:
            rows.setdefault(trial.text.row, []).append(trial.score)
    means = [sum(scores) / len(scores) for scores in rows.values()]
    several = [scores for scores in rows.values() if len(scores) > 1]
    return {
        "n": len(trials),
        "rows": len({trial.text.row for trial in trials}),
        "score": sum(means) / len(means) if means else None,
        "ci95": list(interval(means)) if means else None,
        "spread_share": sum(max(s) - min(s) > SPREAD for s in several) / len(several) if several else None,
        "metrics": _metrics(trials),
        "faults": faults(trial.grade for trial in trials),
        "histogram": histogram([score for scores in rows.values() for score in scores]),
    }


def faults(grades: Iterable[Grade]) -> dict[str, dict[str, int]]:
    """How many faults of each kind: the completion's, which score the minimum, and the grader's, without a score."""
    found: dict[str, Counter[str]] = {"completion": Counter(), "grader": Counter()}
    for made in grades:
        if made.score is None:
            found["grader"][made.fault.kind if made.fault else "other_error"] += 1
        elif made.fault:
            found["completion"][made.fault.kind] += 1
    return {whose: dict(kinds.most_common()) for whose, kinds in found.items()}


def histogram(scores: Sequence[float]) -> dict[str, Any] | None:
    """Counts in ten bins of equal width, from 0 to 1 or to where the scores reach; the last includes its upper edge."""
    if not scores:
        return None
    low, high = min(0.0, *scores), max(1.0, *scores)
    edges = [round(low + (high - low) * place / BINS, 12) for place in range(BINS + 1)]  # 0.3, not 0.30000000000000004
    places = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, BINS - 1)
    return {"edges": edges, "counts": np.bincount(places, minlength=BINS).tolist()}


def _metrics(trials: Sequence[Trial]) -> dict[str, float]:
    """The mean of each sub-score, over the texts that have it."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for name, value in trial.grade.metrics.items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}
