"""What runs lie below a folder, and how each stands: cheaply, and whatever is damaged in it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sharpen.runs.store import LOCK, holder

Record = Mapping[str, Any]

State = Literal["running", "finished", "paused", "interrupted", "failed", "killed", "damaged"]
"""`killed`: its last process neither ended it nor is there any more. `damaged`: nothing says how it stands."""

ENDINGS: tuple[State, ...] = ("finished", "paused", "interrupted", "failed")
BEGINNINGS = ("started", "resumed")
DEPTH = 3
"""Folders within each other that are looked into for runs."""
TAIL = 1 << 16
"""Bytes at the end of metrics.jsonl in which the last line is looked for."""


class Best(NamedTuple):
    """The best model of a run by its first eval; `ci95` is there once the run's summary is."""

    eval: str
    model: str
    score: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Entry:
    """How a run stands; times are seconds since 1970, `latest` is the last line of its metrics."""

    path: Path
    state: State
    cause: str
    process: str
    model: str
    latest: Record
    best: Best | None
    began: float | None
    seconds: float
    disk: Mapping[str, int]
    trouble: str

    @property
    def bytes(self) -> int:
        """What all of it takes on the disk."""
        return sum(self.disk.values())


class Found(NamedTuple):
    """The run directories at or below a folder, and its subfolders that hold none."""

    runs: tuple[Path, ...]
    others: tuple[Path, ...]


def find(folder: Path) -> Found:
    """The runs at `folder` or a few levels below; links and hidden folders are not followed."""
    if is_run(folder):
        return Found((folder,), ())
    children = [(child, tuple(_below(child, DEPTH - 1))) for child in _subfolders(folder)]
    runs = [run for _, found in children for run in found]
    return Found(tuple(runs), tuple(child for child, found in children if not found))


def is_run(folder: Path) -> bool:
    """Whether a run has begun in the folder, or a process is about to begin one."""
    return (folder / "events.jsonl").is_file() or (_opened(folder) and bool(holder(folder)))


def never_began(folder: Path) -> bool:
    """Whether a run was to be made here, and was refused before it began."""
    return _opened(folder) and not is_run(folder)


def look(path: Path) -> Entry:
    """How the run in `path` stands."""
    process = holder(path)  # first: a run that ends meanwhile is then at worst called running
    events, bad = _lines(path / "events.jsonl")
    summary = parsed(_text(path / "summary.json")) or {}
    life = [event for event in events if event.get("event") in (*BEGINNINGS, *ENDINGS)]
    last = life[-1] if life else {}
    latest = _last_line(path / "metrics.jsonl")
    state = _state(process, str(last.get("event", "")), summary)
    started: Record = next((event for event in events if event.get("event") == "started"), {})
    trouble = [f"{bad} lines of events.jsonl cannot be read"] if bad else []
    trouble += [f"there is no readable {name}" for name in _missing(path, state, summary)]
    return Entry(
        path=path,
        state=state,
        cause=str(last.get("cause") or "") if state == last.get("event") else "",
        process=process,
        model=str(started.get("model") or summary.get("model") or ""),
        latest=latest,
        best=_best(events, summary),
        began=_time(life[0]) if life else None,
        seconds=_seconds(path, events, bool(process)),
        disk=disk(path),
        trouble="; ".join(trouble),
    )


def disk(run: Path) -> dict[str, int]:
    """Bytes of a run's files by what they are: checkpoints, best, models, rollouts, rest."""
    sizes = dict.fromkeys(("checkpoints", "best", "models", "rollouts", "rest"), 0)
    for path, size in files(run):
        parts = path.relative_to(run).parts
        kind = parts[2] if parts[0] == "stages" and len(parts) > 3 else parts[0] if len(parts) > 1 else "rest"
        sizes[kind if kind in sizes else "rest"] += size
    return sizes


def files(folder: Path) -> Iterator[tuple[Path, int]]:
    """The files below a folder with their sizes; what vanishes meanwhile is left out."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            try:
                yield path, path.lstat().st_size
            except OSError:
                continue


def parsed(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object of a text, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth > 0:
        for child in _subfolders(folder):
            yield from _below(child, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and _plain(path))
    except OSError:  # one that may not be read
        return []


def _plain(path: Path) -> bool:
    return not path.name.startswith(".") and not path.is_symlink()


def _opened(folder: Path) -> bool:
    return (folder / LOCK).is_file()


def _state(process: str, last: str, summary: Record) -> State:
    said = last or summary.get("status")
    if process:
        return "running"
    if said in BEGINNINGS:
        return "killed"
    return next((state for state in ENDINGS if state == said), "damaged")


def _missing(path: Path, state: State, summary: Record) -> Iterator[str]:
    if state == "damaged":
        yield "events.jsonl"
    if not (path / "recipe.yaml").is_file() and state != "running":
        yield "recipe.yaml"
    if state == "finished" and not summary:
        yield "summary.json"


def _best(events: Sequence[Record], summary: Record) -> Best | None:
    """By the events, which a running run has too; an interval from the summary where it is of the same score."""
    scores: dict[str, dict[str, float]] = {}
    for event in events:
        if event.get("event") == "evaluated" and isinstance(event.get("score"), int | float):
            scores.setdefault(str(event.get("eval")), {})[str(event.get("model"))] = float(event["score"])
    intervals: dict[str, dict[str, tuple[float, Any]]] = {}
    for model, name, result in _results(summary):
        intervals.setdefault(name, {})[model] = (float(result["score"]), result.get("ci95"))
    if not scores and not intervals:
        return None
    name = next(iter(scores or intervals))
    known = scores.get(name) or {model: score for model, (score, _) in intervals[name].items()}
    model = max(known, key=lambda model: known[model])
    score, ci95 = intervals.get(name, {}).get(model, (None, None))
    shown = score == known[model] and isinstance(ci95, list) and len(ci95) == 2
    return Best(name, model, known[model], (float(ci95[0]), float(ci95[1])) if shown and ci95 else None)


def _results(summary: Record) -> Iterator[tuple[str, str, Record]]:
    """Model, eval and result for all that a summary tells, as far as it is one."""
    stages = summary.get("stages")
    for entry in (summary.get("base"), *(stages if isinstance(stages, list) else ())):
        evals = entry.get("evals") if isinstance(entry, dict) else None
        for name, result in (evals if isinstance(evals, dict) else {}).items():
            if isinstance(result, dict) and isinstance(result.get("score"), int | float):
                yield str(entry.get("name", "base")), name, result


def _seconds(path: Path, events: Sequence[Record], running: bool) -> float:
    """What its processes have spent; that of one that was killed until it last wrote."""
    spent, began, last = 0.0, None, None
    for event in events:
        if (now := _time(event)) is None:
            continue
        if event.get("event") in BEGINNINGS:
            spent += (last - began) if began is not None and last is not None else 0.0
            began = now
        last = now
        if event.get("event") in ENDINGS and began is not None:
            spent, began = spent + now - began, None
    if began is None:
        return spent
    return spent + max(0.0, (time.time() if running else _last_write(path, last or began)) - began)


def _last_write(path: Path, last: float) -> float:
    try:
        return max(last, (path / "metrics.jsonl").stat().st_mtime)
    except OSError:
        return last


def _time(event: Record) -> float | None:
    value = event.get("time")
    return float(value) if isinstance(value, int | float) else None


def _last_line(path: Path) -> Record:
    """The last whole line of a JSONL file, or nothing."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            whole = file.read().split(b"\n")[:-1]
    except OSError:
        return {}
    return next((found for line in reversed(whole) if (found := parsed(line))), {})


def _lines(path: Path) -> tuple[list[Record], int]:
    """The records of a JSONL file, and how many of its whole lines are none."""
    found = [parsed(line) for line in _text(path).split("\n")[:-1]]
    return [record for record in found if record], sum(record is None for record in found)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""
