"""A run told to its trackers: each from a thread of its own, so that one which fails or hangs harms nothing."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.runs.observer import Observer
from sharpen.runs.store import RunDir, write_text
from sharpen.runs.trackers import TRACKERS, Tracker, numbers

WAITING = 1000
"""So many lines may wait for a tracker; one that falls further behind is left alone."""

DRAIN = 30.0
"""Seconds that the run's end waits for each of its trackers."""

DRAIN_STOPPED = 5.0
"""The same, for a run that was stopped: whoever stopped it is waiting."""


class Line(NamedTuple):
    """Numbers of one step; those of a stage are told once, though a resumed run does steps over."""

    series: str
    step: int
    values: dict[str, float]


class End(NamedTuple):
    """The last thing a tracker is told."""

    status: str
    summary: dict[str, float]


class Channel:
    """The queue and the thread before one tracker. `trouble` says why it is left alone, once that is so."""

    def __init__(self, name: str, tracker: Tracker, run: Path, config: Mapping[str, Any]) -> None:
        self.name = name
        self.trouble = ""
        self._tracker = tracker
        self._run = run
        self._config = config
        self._path = run / "trackers" / f"{name}.json"
        self._queue: queue.Queue[Line | End] = queue.Queue(WAITING)
        # A daemon: a tracker that hangs must not keep the process from its end.
        self._thread = threading.Thread(target=self._work, name=f"sharpen-{name}", daemon=True)
        self._thread.start()

    def put(self, item: Line | End) -> None:
        """Hand over without waiting."""
        if self.trouble:
            return
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            self.trouble = f"it does not keep up: {WAITING} lines wait for it"

    def close(self, end: End, seconds: float) -> None:
        """Hand over the end, and wait so long for the thread."""
        self.put(end)
        if self.trouble:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.trouble = f"it did not take everything within {seconds:g} seconds of the run's end"

    def _work(self) -> None:
        try:
            state: dict[str, Any] = {"identity": "", "told": {}}
            if self._path.exists():
                state = json.loads(self._path.read_text())
            state["identity"] = self._tracker.start(self._run, self._config, state["identity"])
            self._keep(state)
            while not self.trouble:
                item = self._queue.get()
                if isinstance(item, End):
                    self._tracker.finish(*item)
                    return
                self._log(item, state)
        except BaseException as error:  # a foreign boundary, and some exit on trouble
            self.trouble = self.trouble or f"{type(error).__name__}: {error}"

    def _log(self, line: Line, state: dict[str, Any]) -> None:
        if line.series != "eval" and line.step <= state["told"].get(line.series, 0):
            return
        self._tracker.log(*line)
        state["told"][line.series] = line.step
        self._keep(state)

    def _keep(self, state: dict[str, Any]) -> None:
        write_text(self._path, json.dumps(state) + "\n")


class Reporting(Observer):
    """Passes metrics and evaluations on to the trackers; the first trouble with each becomes an alert."""

    def __init__(self, run: RunDir, names: Sequence[str], stages: Sequence[str], config: Mapping[str, Any]) -> None:
        """`stages` are the stages' names in order, `config` the recipe."""
        self._run = run
        self._models = ("base", *stages)
        self._channels = [Channel(name, TRACKERS[name](), run.path, config) for name in dict.fromkeys(names)]
        self._told: set[str] = set()

    def event(self, event: Mapping[str, Any]) -> None:
        """An evaluation is a point of the series `eval`: 0 is the base model, then the stages in order."""
        if event["event"] == "evaluated":
            step = self._models.index(event["model"])
            self._put(Line("eval", step, numbers({event["eval"]: event["score"]})))

    def metrics(self, line: Mapping[str, Any]) -> None:
        """A step is a point of its stage's series."""
        values = {name: value for name, value in line.items() if name not in ("stage", "type", "step", "steps")}
        self._put(Line(line["stage"], line["step"], numbers(values)))

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Wait a bounded time until everything has been taken."""
        end = End(status, numbers(summary))
        for channel in self._channels:
            channel.close(end, DRAIN if status == "finished" else DRAIN_STOPPED)
        self._tell()

    def _put(self, line: Line) -> None:
        for channel in self._channels:
            channel.put(line)
        self._tell()

    def _tell(self) -> None:
        """From the run's own thread: only it may write events."""
        for channel in self._channels:
            if channel.trouble and channel.name not in self._told:
                self._told.add(channel.name)
                message = f"{channel.name} is left alone, the run goes on: {channel.trouble}"
                self._run.event("alert", kind="tracker", message=message)
