"""A run told in lines, for a script or a notebook that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sharpen.reports.numbers import finite, plain, show
from sharpen.runs.observer import Observer

EVERY = 10.0
"""Seconds between lines at least, but for what is told once."""

TOLD_ONCE = ("lr_chosen", "probed", "remote", "alert", "early_stopped")


class Lines(Observer):
    """Prints where the run stands: steps with their loss or reward, scores, and whatever else it says."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self._say = say or (lambda text: print(text, flush=True))
        self._last = -EVERY

    def event(self, event: Mapping[str, Any]) -> None:
        """What is told once."""
        kind, stage = event["event"], event.get("stage")
        if kind == "evaluated":
            self._say(f"{event['eval']} on {event['model']}: {show(event['score'], 'share')} right")
        elif kind in TOLD_ONCE:
            text = str(event.get("message") or event.get("cause"))
            self._say(f"{stage}: {text}" if stage and stage not in text else text)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """A step; the last of a stage always."""
        name, value = ("reward", finite(line, "reward", "mean")) if "reward" in line else ("loss", finite(line, "loss"))
        shown = "" if value is None else f"  {name} {plain(value)}"
        last = line["step"] == line["steps"]
        self._now_and_then(f"{line['stage']}: step {line['step']} of {line['steps']}{shown}", last)

    def progress(self, what: str, done: int, total: int) -> None:
        """Inside a longer piece of work."""
        if done and what != "sample":
            self._now_and_then(f"{what}: {done} of {total}")

    def _now_and_then(self, text: str, surely: bool = False) -> None:
        now = time.monotonic()
        if surely or now - self._last >= EVERY:
            self._last = now
            self._say(text)
