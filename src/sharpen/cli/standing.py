"""Runs found and put into words: what the actions of `sharpen runs` share."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.errors import RunError

if TYPE_CHECKING:
    from sharpen.runs.listing import Entry, Found

HOME = Path("runs")
"""Where `sharpen run` puts its directories when it is not told otherwise."""

STYLES = {"finished": "green", "running": "cyan", "paused": "yellow", "interrupted": "yellow"}
"""Of the states; all others are red."""


def below(folders: Sequence[Path]) -> Found:
    """The runs at or below the folders. Raises RunError where a folder that was named is none."""
    from sharpen.runs.listing import Found, find

    for folder in folders:
        if not folder.is_dir():
            raise RunError("there is no such folder", value=str(folder), remedy="Name folders that hold runs")
    found = [find(folder) for folder in folders or [HOME]]
    runs, others = (tuple(dict.fromkeys(path for part in parts for path in part)) for parts in zip(*found, strict=True))
    return Found(runs, others)


def one(folder: Path) -> Entry:
    """How a run stands. Raises RunError where there is none."""
    from sharpen.runs.listing import is_run, look, never_began

    if is_run(folder):
        return look(folder)
    if not folder.is_dir():
        raise RunError("there is no such folder", value=str(folder), remedy="`sharpen runs list` names the runs")
    fact = "the run in this folder never began" if never_began(folder) else "this folder is no run directory"
    raise RunError(fact, value=str(folder), remedy="`sharpen runs list` names the runs")


def described(entry: Entry) -> dict[str, Any]:
    """A run as JSON."""
    return {
        "path": str(entry.path),
        "state": entry.state,
        "cause": entry.cause,
        "process": entry.process,
        "model": entry.model,
        **{name: entry.latest.get(name) for name in ("stage", "step", "steps")},
        "best": entry.best._asdict() if entry.best else None,
        "began": entry.began,
        "seconds": round(entry.seconds, 1),
        "bytes": entry.bytes,
        "disk": dict(entry.disk),
        "trouble": entry.trouble,
    }


def ended(entry: Entry) -> str:
    """How a run stands that nobody is at work in, as a sentence."""
    said = {"killed": "was killed: its process ended without a word (out of memory, a crash, a power cut)"}
    words = {"finished": "has finished", "failed": "has failed", "paused": "is paused", "damaged": "is damaged"}
    text = f"The run {said.get(entry.state) or words.get(entry.state, f'was {entry.state}')}"
    return f"{text}: {entry.cause}" if entry.cause else text


def percent(score: float, ci95: Sequence[float] | None) -> str:
    """`69.6% [65.4, 73.5]`."""
    from sharpen.reports.numbers import show

    return show(score, "share") + (f" [{ci95[0] * 100:.1f}, {ci95[1] * 100:.1f}]" if ci95 else "")


def quoted(folder: Path) -> str:
    """A folder as a shell takes it."""
    return shlex.quote(str(folder))


def age(began: float | None) -> str:
    """How long ago, in the largest unit: `3 min`, `5 h`, `12 d`."""
    if began is None:
        return ""
    seconds = max(0.0, time.time() - began)
    for name, unit in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
