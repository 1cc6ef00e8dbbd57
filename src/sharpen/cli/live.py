"""The progress on a terminal: stages with bars and curves, the last answer, events above."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live as RichLive
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sharpen.cli.track import (
    RECENT,
    Plan,
    StageTrack,
    Track,
    event_line,
    headline,
    preferred,
    sample_lines,
    sparkline,
    tokens_per_second,
)
from sharpen.reports.numbers import count, duration, plain
from sharpen.runs.observer import Observer

QUIET = ("started", "stage_started", "stage_finished", "finished", "failed")
"""Events that the picture shows by itself, and the one that an error message follows."""

STYLES = {"evaluated": "bold", "alert": "yellow", "paused": "yellow", "interrupted": "yellow"}


class Live(Observer):
    """Draws itself four times a second while it is entered; the last picture stays."""

    def __init__(
        self, plan: Plan, steps_between_samples: int, console: Console | None = None, *, elapsed: float = 0.0
    ) -> None:
        self._track = Track(plan)
        self._steps_between_samples = steps_between_samples
        self._shown: tuple[str, int, Mapping[str, Any]] | None = None  # (stage, step, line of rollouts)
        self._began = time.monotonic() - elapsed
        self._console = console or Console(highlight=False)
        self._live = RichLive(console=self._console, get_renderable=self.picture, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._track.work = None
        self._live.__exit__(kind, error, trace)

    def event(self, event: Mapping[str, Any]) -> None:
        self._track.event(event)
        kind = str(event.get("event"))
        if kind not in QUIET:
            self._live.console.print(Text(event_line(event), style=STYLES.get(kind, "dim")))

    def metrics(self, line: Mapping[str, Any]) -> None:
        self._track.metrics(line)

    def rollout(self, line: Mapping[str, Any]) -> None:
        step, stage = self._track.rollout(line), self._track.current
        if self._shown is None or self._shown[0] != stage or step >= self._shown[1] + self._steps_between_samples:
            self._shown = (stage, step, line)

    def progress(self, what: str, done: int, total: int) -> None:
        self._track.progress(what, done, total)

    def picture(self) -> RenderableType:
        """All there is to see now."""
        parts: list[RenderableType] = [self._header(), Text(), self._stages()]
        if self._track.work is not None:
            parts.append(self._work(*self._track.work))
        if self._shown is not None:
            parts += [Text(), self._sample(*self._shown)]
        return Group(*parts, Text())

    def _header(self) -> Text:
        plan = self._track.plan
        facts = (plan.model, str(plan.folder or ""), duration(time.monotonic() - self._began))
        bold, *rest = (fact for fact in facts if fact)
        return Text.assemble((bold, "bold"), *((f"  {fact}", "dim") for fact in rest))

    def _stages(self) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        for ratio in (None, None, 1, None, None, None, None, None):
            grid.add_column(ratio=ratio, no_wrap=True)
        curve = min(RECENT, max(8, self._console.width - 80))
        for stage in tuple(self._track.stages.values()):
            grid.add_row(*self._stage(stage, curve))
        return grid

    def _stage(self, stage: StageTrack, curve: int) -> tuple[RenderableType, ...]:
        shown = {
            name: value for name, value in (headline(stage.line), *preferred(stage.line).items()) if value is not None
        }
        rate = tokens_per_second(stage.line)
        running = stage.name == self._track.current and not stage.done
        mark = Text("✓", "green") if stage.done else Text("●", "cyan") if running else Text("○", "dim")
        if stage.done:
            end = duration(stage.seconds) if stage.seconds else ""
        else:
            end = f"ETA {duration(stage.seconds_left())}" if stage.steps else ""
        return (
            mark,
            Text(stage.name, "bold" if running else "" if stage.done else "dim"),
            _bar(stage.step, stage.steps or 1),
            Text(f"{stage.step}/{stage.steps}" if stage.steps else ""),
            Text("  ").join(Text.assemble(f"{name} ", (plain(value), "bold")) for name, value in shown.items()),
            Text(sparkline(tuple(stage.curve)[-curve:]), "cyan"),
            Text(f"{count(rate)} tok/s" if rate else "", "dim"),
            Text(end),
        )

    def _work(self, what: str, done: int, total: int) -> Table:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(f"  {what}", "dim"), ProgressBar(total=total, completed=done, width=24), f"{done:,}/{total:,}"
        )
        return grid

    def _sample(self, stage: str, step: int, line: Mapping[str, Any]) -> Table:
        prompt, answer, got = sample_lines(line, limit=2 * self._console.width)
        grid = Table.grid(padding=(0, 2))
        good = got.startswith("1")
        grid.add_row(Text("prompt", "dim"), Text(prompt))
        grid.add_row(Text("answer", "dim"), Text(answer, "green" if good else ""))
        grid.add_row(Text("reward", "dim"), Text.assemble((got, "bold"), (f"   {stage}, step {step}", "dim")))
        return grid


def _bar(done: int, total: int, width: int | None = None) -> ProgressBar:
    return ProgressBar(total=total, completed=done, width=width, complete_style="cyan", finished_style="green")
