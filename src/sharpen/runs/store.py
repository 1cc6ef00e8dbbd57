"""The run directory: the one interface between training and everything that shows it."""

from __future__ import annotations

import json
import math
import os
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from sharpen.errors import RunError
from sharpen.runs.observer import Careful, Observer

Line = Mapping[str, Any]

LOCK = ".lock"
"""The file of a run directory that the process at work in it has locked."""

GLANCE = 0.05
"""Seconds after which a lock that was only looked at (`holder`) is free again."""


class RunDir:
    """A run directory, held by one process at a time; use as a context manager."""

    def __init__(self, path: Path, observer: Observer | None = None) -> None:
        self.path = path
        self.observer: Observer = Careful(observer or Observer())
        self.last_event = ""
        self.kept: frozenset[str] = frozenset()
        """Stages that are done, whose metrics stay whatever is done over."""
        self._lock: IO[str] | None = None

    def __enter__(self) -> RunDir:
        """Take the directory. Raises RunError when another process holds it, or when it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise RunError(
                f"the run directory cannot be written: {error.strerror}",
                value=str(self.path),
                remedy="Choose another --out",
            ) from error
        try:
            _take_surely(lock)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise RunError(
                "another process is at work in this run directory",
                value=f"{self.path}, process {holder}",
                remedy="Wait for it, stop it, or choose another --out",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def event(self, event: str, **fields: Any) -> None:
        """Append to events.jsonl."""
        line = _finite({"time": round(time.time(), 3), "event": event, **fields})
        append(self.path / "events.jsonl", [line])
        self.last_event = event
        self.observer.event(line)

    def metrics(self, line: Line) -> None:
        """Append to metrics.jsonl; a number that is not finite becomes null."""
        line = _finite(line)
        append(self.path / "metrics.jsonl", [line])
        self.observer.metrics(line)

    def rollouts(self, stage: str, step: int, lines: list[dict[str, Any]]) -> None:
        """Write a step's rollouts, one line a completion."""
        write_lines(self.path / "rollouts" / stage / f"step-{step:05d}.jsonl", lines)
        self.observer.rollout(lines[step % len(lines)])

    def offset(self) -> int:
        """The present length of metrics.jsonl, in bytes, all of them on disk."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return 0
        with path.open("rb") as file:
            os.fsync(file.fileno())
            return file.seek(0, os.SEEK_END)

    def rewind(self, stage: str, step: int) -> None:
        """Forget all metrics from the first of `stage` past `step` on but those of stages that are done, and its
        rollouts past `step`.

        Found by content, not by a noted offset: a stage that is done over writes other times, so other lengths.
        """
        metrics = self.path / "metrics.jsonl"
        if metrics.exists():
            length, content = _length_until(metrics, stage, step), metrics.read_bytes()
            after = content[length:].splitlines(keepends=True)
            kept = [raw for raw in after if raw.endswith(b"\n") and json.loads(raw)["stage"] in self.kept - {stage}]
            if kept:
                write_text(metrics, (content[:length] + b"".join(kept)).decode())
            else:
                os.truncate(metrics, length)
        for path in (self.path / "rollouts" / stage).glob("step-*.jsonl"):
            if int(path.stem.removeprefix("step-")) > step:
                path.unlink()


def holder(folder: Path) -> str:
    """The number of the process at work in a run directory; empty where none is."""
    try:
        with (folder / LOCK).open() as lock:
            try:
                _take(lock, shared=True)
            except OSError:
                return lock.read().strip() or "unknown"
    except OSError:
        pass
    return ""


def resume_command(folder: Path) -> str:
    """The command that goes on with the run in `folder`."""
    return f"sharpen run --resume {shlex.quote(str(folder))}"


class Journal:
    """Grades that cannot be repeated, written before they are used, so that a resume sees the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = {tuple(line["key"]): line["grade"] for line in read_lines(path)}

    def get(self, key: tuple[int | str, ...]) -> dict[str, Any] | None:
        """The grade noted under a key (step, place of the example, sample, what was graded), if there is one."""
        return self._known.get(key)

    def note(self, entries: Mapping[tuple[int | str, ...], dict[str, Any]]) -> None:
        """Write grades down and make sure they are on disk."""
        if entries:
            append(self.path, [{"key": list(key), "grade": grade} for key, grade in entries.items()], sync=True)
            self._known.update(entries)

    def forget(self, step: int) -> None:
        """Drop the grades of a step that is to be graded anew (keys begin with the step)."""
        self._known = {key: grade for key, grade in self._known.items() if key[0] != step}
        if self.path.exists():
            write_lines(self.path, [{"key": list(key), "grade": grade} for key, grade in self._known.items()])


def append(path: Path, lines: Iterable[Line], *, sync: bool = False) -> None:
    """Add lines to a JSONL file; a last line that a crash cut short is cut away first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _drop_partial_line(file)
        file.write("".join(_dump(line) for line in lines).encode(errors="replace"))
        if sync:
            file.flush()
            os.fsync(file.fileno())


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Write a JSONL file, whole or not at all."""
    write_text(path, "".join(_dump(line) for line in lines))


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    with aside.open("w", encoding="utf-8", errors="replace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a JSONL file of ours; none when it does not exist."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _dump(line: Line) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(line: Line) -> dict[str, Any]:
    """The line with null for NaN and infinity, which JSON does not have."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: clean(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: clean(value) for name, value in line.items()}


def _length_until(metrics: Path, stage: str, step: int) -> int:
    """The bytes before the first line of `stage` past `step`, or before a line that a crash cut short."""
    length = 0
    for raw in metrics.read_bytes().splitlines(keepends=True):
        if not raw.endswith(b"\n"):
            break
        line = json.loads(raw)
        if line["stage"] == stage and line["step"] > step:
            break
        length += len(raw)
    return length


def _drop_partial_line(file: IO[bytes]) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _take_surely(lock: IO[str]) -> None:
    """Lock a file, or raise OSError where another process holds it for more than a glance."""
    try:
        _take(lock)
    except OSError:
        time.sleep(GLANCE)
        _take(lock)


def _take(lock: IO[str], *, shared: bool = False) -> None:
    """Lock a file, or raise OSError at once; shared locks (which Windows lacks) do not exclude each other."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
