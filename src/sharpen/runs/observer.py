"""Who watches a run: the command line draws progress, tests count, the Python API may ignore it all."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from sharpen.errors import SharpenError


class Observer:
    """Is told what happens as it happens; does nothing by default. A run never depends on its observer."""

    def event(self, event: Mapping[str, Any]) -> None:
        """A line of events.jsonl was written."""

    def metrics(self, line: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl was written: a step is done."""

    def rollout(self, line: Mapping[str, Any]) -> None:
        """One line of a step's rollouts, as an example of what the model answers now (once a step)."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Inside a longer piece of work, such as "eval held_out on sft": `done` of `total` parts."""


class Careful(Observer):
    """Passes everything on until the other observer fails; from then on the run goes on unwatched, and says so."""

    def __init__(self, other: Observer) -> None:
        self._other = other

    def event(self, event: Mapping[str, Any]) -> None:
        """Passed on."""
        self._tell("event", event)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """Passed on."""
        self._tell("metrics", line)

    def rollout(self, line: Mapping[str, Any]) -> None:
        """Passed on."""
        self._tell("rollout", line)

    def progress(self, what: str, done: int, total: int) -> None:
        """Passed on."""
        self._tell("progress", what, done, total)

    def _tell(self, what: str, *facts: Any) -> None:
        try:
            getattr(self._other, what)(*facts)
        except SharpenError:
            raise  # an observer may stop the run on purpose
        except Exception as error:
            print(f"the run goes on unwatched: its observer failed with {error!r}", file=sys.stderr)
            self._other = Observer()


class Several(Observer):
    """Passes everything on to each of several observers, whatever becomes of the others."""

    def __init__(self, *others: Observer) -> None:
        self._others = tuple(Careful(other) for other in others)

    def event(self, event: Mapping[str, Any]) -> None:
        """Passed on."""
        for other in self._others:
            other.event(event)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """Passed on."""
        for other in self._others:
            other.metrics(line)

    def rollout(self, line: Mapping[str, Any]) -> None:
        """Passed on."""
        for other in self._others:
            other.rollout(line)

    def progress(self, what: str, done: int, total: int) -> None:
        """Passed on."""
        for other in self._others:
            other.progress(what, done, total)
