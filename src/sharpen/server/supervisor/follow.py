"""A job's run directory as it grows, told as events of the API. Told again, as after a crash, nothing comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sharpen.runs.tail import LIFE, Tail
from sharpen.server.supervisor.place import Place, counted
from sharpen.server.supervisor.said import Record, Said, of_event, of_step

AT_ONCE = 500
"""Events that one transaction takes."""


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the API, with the id that it has however often it is told."""

    id: str
    at: int | None
    """Seconds since 1970; None: now."""

    said: Said

    @property
    def type(self) -> Literal["message", "metrics"]:
        """As the API has them."""
        return "metrics" if self.said.data is not None else "message"


@dataclass(slots=True)
class News:
    """What has come since the last look."""

    told: list[Told] = field(default_factory=list)
    steps: list[Record] = field(default_factory=list)
    checkpoints: list[Record] = field(default_factory=list)
    """Events of such."""

    life: Record | None = None
    """The last event that says how the run stands."""

    isolation: str | None = None

    def __bool__(self) -> bool:
        return bool(self.told or self.steps or self.checkpoints or self.life or self.isolation)


class Follow:
    """Reads what is new in a run directory, from its beginning on."""

    def __init__(self, place: Place) -> None:
        self._job = place.job
        self._events = Tail(place.run / "events.jsonl")
        self._metrics = Tail(place.run / "metrics.jsonl")
        self._seen = 0
        self.life: Record = {}
        self.by_step: dict[tuple[str, int], Record] = {}
        """The lines of the steps, the newest of each."""

    def poll(self) -> News:
        """What has come; it waits for the disk."""
        events = self._events.poll()  # first: the steps that an event follows are then in the metrics
        steps = [line for line in self._metrics.poll() if isinstance(line.get("step"), int)]
        news = News(steps=steps)
        self.by_step |= {(str(line.get("stage")), line["step"]): line for line in steps}
        left = list(steps)
        for event in events:
            news.told += self._before(event, left)
            self._hear(event, news)
        news.told += [told for line in left for told in self._step(line)]
        return news

    def _hear(self, event: Record, news: News) -> None:
        kind = event.get("event")
        if kind in LIFE:
            news.life = self.life = event
        if kind == "checkpoint":
            news.checkpoints.append(event)
        if kind == "sandbox":
            news.isolation = str(event.get("isolation"))
        if said := of_event(event):
            at = event.get("time")
            id = counted("ftevent", self._job, "event", self._seen)
            news.told.append(Told(id, int(at) if isinstance(at, int | float) else None, said))
        self._seen += 1

    def _before(self, event: Record, left: list[Record]) -> Iterator[Told]:
        """The steps that had been done when an event came: those up to the step that it names, or all of its stage."""
        stage, step = event.get("stage"), event.get("step")
        if event.get("event") == "stage_finished":
            step = left[-1]["step"] if left else 0
        if not isinstance(step, int):
            return
        later: list[Record] = []
        for line in left:
            if line.get("stage") == stage and line["step"] <= step:
                yield from self._step(line)
            else:
                later.append(line)
        left[:] = later

    def _step(self, line: Record) -> Iterator[Told]:
        if said := of_step(line):
            yield Told(counted("ftevent", self._job, "step", line.get("stage"), line["step"]), None, said)


def last_step(news: News) -> dict[str, Any] | None:
    """The `progress` of a job after news that have steps."""
    if not news.steps:
        return None
    line = news.steps[-1]
    return {"stage": line.get("stage"), "step": line["step"], "steps": line.get("steps")}
