"""A run's progress as it happens: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from sharpen.cli.track import Plan, Track, event_line, sample_lines, step_line
from sharpen.runs.observer import Observer

__all__ = ["Plain", "Plan", "watching"]

SECONDS_BETWEEN_STEPS = 2.0
SECONDS_BETWEEN_PARTS = 5.0
SECONDS_BETWEEN_SAMPLES = 10.0
STEPS_BETWEEN_SAMPLES = 5


@contextmanager
def watching(plan: Plan) -> Iterator[Observer]:
    """The observer that suits standard output, for as long as the run lasts; under torchrun only rank 0 shows it."""
    from sharpen.train.ranks import follows  # imports torch

    if follows():
        yield Observer()
    else:
        with shown(plan) as observer:
            yield observer


@contextmanager
def shown(plan: Plan, elapsed: float = 0.0) -> Iterator[Observer]:
    """The observer that suits standard output, of a run that has taken so many seconds already."""
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        from sharpen.cli.live import Live  # imports rich

        with Live(plan, STEPS_BETWEEN_SAMPLES, elapsed=elapsed) as observer:
            yield observer
    else:
        yield Plain(plan, sys.stdout)


class Plain(Observer):
    """Lines for a log: the first, the last and every validation step, others at most every two seconds."""

    def __init__(self, plan: Plan, file: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._track = Track(plan)
        self._file: TextIO | None = file
        self._clock = clock
        self._last_step = self._last_line = clock()
        self._last_sample = clock() - SECONDS_BETWEEN_SAMPLES
        self._shown: set[str] = set()
        self._next_sample = 1

    @property
    def unheard(self) -> bool:
        """Whether what is printed can no longer be written."""
        return self._file is None

    def event(self, event: Mapping[str, Any]) -> None:
        self._track.event(event)
        if event.get("event") == "stage_started":
            self._next_sample = 1
        self._say(event_line(event))

    def metrics(self, line: Mapping[str, Any]) -> None:
        stage = self._track.metrics(line)
        now = self._clock()
        due = now - self._last_step >= SECONDS_BETWEEN_STEPS
        if due or stage.name not in self._shown or stage.step == stage.steps or line.get("validation"):
            self._shown.add(stage.name)
            self._last_step = now
            self._say(step_line(stage))

    def rollout(self, line: Mapping[str, Any]) -> None:
        step = self._track.rollout(line)
        now = self._clock()
        if step >= self._next_sample and now - self._last_sample >= SECONDS_BETWEEN_SAMPLES:
            self._next_sample, self._last_sample = step + STEPS_BETWEEN_SAMPLES, now
            prompt, answer, got = sample_lines(line)
            self._say(f"    prompt  {prompt}\n    answer  {answer}\n    reward  {got}")

    def progress(self, what: str, done: int, total: int) -> None:
        if self._clock() - self._last_line >= SECONDS_BETWEEN_PARTS:
            self._say(f"{what} {done:,}/{total:,}")

    def _say(self, text: str) -> None:
        self._last_line = self._clock()
        if self._file is None:
            return
        try:
            print(text, file=self._file, flush=True)
        except OSError:  # nobody reads any more, or the log's disk is full: the run goes on without us
            self._file = None
