"""A run directory as it grows: what another process writes, told to an observer as that process's own would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.runs.listing import BEGINNINGS, ENDINGS, parsed
from sharpen.runs.observer import Observer

Record = Mapping[str, Any]

LIFE = (*BEGINNINGS, *ENDINGS)


class Tail:
    """The lines of a JSONL file as they come; a file that is cut back and grows anew (a resumed run) is followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        """All that were told, without their ends."""
        self._end = 0

    def poll(self) -> list[Record]:
        """The records that have come since the last time; a line that is not whole yet is left for the next."""
        try:
            with self._path.open("rb") as file:
                last = self._lines[-1] + b"\n" if self._lines else b""
                file.seek(self._end - len(last))
                if file.read(len(last)) != last:
                    file.seek(0)
                    return self._anew(file.read())
                return self._take(file.read())
        except FileNotFoundError:
            return []

    def _take(self, content: bytes) -> list[Record]:
        whole = content[: content.rfind(b"\n") + 1]
        self._end += len(whole)
        new = whole.split(b"\n")[:-1]
        self._lines += new
        return [record for line in new if (record := parsed(line))]

    def _anew(self, content: bytes) -> list[Record]:
        """After a cut: what follows the lines that both have."""
        common = end = 0
        for known in self._lines:
            if content[end : end + len(known) + 1] != known + b"\n":
                break
            common, end = common + 1, end + len(known) + 1
        del self._lines[common:]
        self._end = end
        return self._take(content[end:])


class Follower:
    """Reads a run's events and metrics, and tells an observer what is new, in the order in which it happened.

    Of what was there before, the observer hears all steps, but the events only from the last start or resumption on:
    the run's own observer had heard no others.
    """

    def __init__(self, run: Path, observer: Observer) -> None:
        self._run = run
        self._observer = observer
        self._events = Tail(run / "events.jsonl")
        self._metrics = Tail(run / "metrics.jsonl")
        self._begun = False
        self.life = ""
        """The last event that says whether a process is at work or how it ended, such as `resumed` or `paused`."""

    def poll(self) -> bool:
        """Tell what is new; returns whether anything was."""
        events = self._events.poll()  # first: the steps that an event follows are then in the metrics
        steps = self._metrics.poll()
        if not self._begun:
            events = _last_life(events)
        self._begun = self._begun or bool(events)
        sampled, told = _last_sampled(steps), 0
        for event in events:
            self.life = str(event["event"]) if event.get("event") in LIFE else self.life
            reached = told + _reach(steps[told:], event)
            for line in steps[told:reached]:
                self._step(line, sampled)
            told = reached
            self._observer.event(event)
        for line in steps[told:]:
            self._step(line, sampled)
        return bool(events or steps)

    def _step(self, line: Record, sampled: Record | None) -> None:
        if line is sampled:
            for example in self._example(line):
                self._observer.rollout(example)
        self._observer.metrics(line)

    def _example(self, line: Record) -> Iterator[Record]:
        """The completion of a step that the run's own observer is shown, if it can be read."""
        step = line["step"]
        try:
            path = self._run / "rollouts" / str(line.get("stage")) / f"step-{step:05d}.jsonl"
            lines = path.read_bytes().splitlines()
        except (OSError, ValueError):
            return
        if lines and (example := parsed(lines[step % len(lines)])):
            yield example


def _last_life(events: list[Record]) -> list[Record]:
    """The events from the last beginning on."""
    begun = [place for place, event in enumerate(events) if event.get("event") in BEGINNINGS]
    return events[begun[-1] if begun else 0 :]


def _last_sampled(steps: list[Record]) -> Record | None:
    """The newest step of those told at once that may have rollouts."""
    return next((line for line in reversed(steps) if "reward" in line and isinstance(line.get("step"), int)), None)


def _reach(steps: Sequence[Record], event: Record) -> int:
    """How many of the steps had been done when an event came: those up to its stage's, or up to the step it names."""
    stage = event.get("model") if event.get("event") == "evaluated" else event.get("stage")
    of_stage = [place for place, line in enumerate(steps) if line.get("stage") == stage]
    if event.get("event") == "stage_started":
        return of_stage[0] if of_stage else len(steps)
    step = event.get("step")
    if isinstance(step, int):
        of_stage = [place for place in of_stage if isinstance(at := steps[place].get("step"), int) and at <= step]
    return of_stage[-1] + 1 if of_stage else 0
