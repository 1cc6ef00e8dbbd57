"""The checkpoints that clients see: the newest of a job, or the best where its rewards are looked at.

Each is a folder of hard links, so that it stays when the run drops its own; what only training needs is left out.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select

from sharpen.server.jobs.show import tuned_name
from sharpen.server.settings import Settings
from sharpen.server.supervisor.follow import Follow
from sharpen.server.supervisor.place import Place, counted
from sharpen.server.supervisor.said import Record, checkpoint_metrics
from sharpen.server.tables import checkpoints

KEPT = 3
"""Checkpoints of a job."""

TRAINING = ("trainer.safetensors", "state.json")
"""What nobody needs who only asks the model."""


class Kept(NamedTuple):
    """A checkpoint's step, and what is known of it."""

    step: int
    metrics: dict[str, Any]


def keep(place: Place, follow: Follow, new: Sequence[Record]) -> list[Kept] | None:
    """Link what is new and among those to keep, drop the others; returns all that are kept, None: nothing changed.

    It waits for the disk.
    """
    if not new:
        return None
    there = {int(path.name.removeprefix("step-")): path for path in place.kept.glob("step-*")}
    stages = {int(event["step"]): str(event.get("stage")) for event in new if isinstance(event.get("step"), int)}
    lines = {step: _line(follow, stages.get(step), step) for step in {*there, *stages}}
    for event in new:
        source = place.run / str(event.get("path"))
        step = event.get("step")
        if isinstance(step, int) and source.is_dir():
            target = place.kept / f"step-{step:05d}"
            _link(source, target)
            if target.is_dir():
                there[step] = target
    stay = _best(lines, there)
    for step in set(there) - stay:
        shutil.rmtree(there[step], ignore_errors=True)
    return [Kept(step, checkpoint_metrics(line) if (line := lines[step]) else {"step": step}) for step in sorted(stay)]


def note(connection: Connection, settings: Settings, job: Row[Any], kept: Sequence[Kept]) -> None:
    """Bring the rows of a job's checkpoints in line with those that are kept."""
    steps = [one.step for one in kept]
    of_job = checkpoints.c.job_id == job.id
    connection.execute(delete(checkpoints).where(of_job, checkpoints.c.step_number.not_in(steps)))
    known = set(connection.execute(select(checkpoints.c.step_number).where(of_job)).scalars())
    for one in kept:
        if one.step in known:
            continue
        row = {
            "id": counted("ftckpt", job.id, one.step),
            "job_id": job.id,
            "created_at": int(time.time()),
            "step_number": one.step,
            "model": tuned_name(job.model, settings.organization, job.suffix, job.id, one.step),
            "metrics": one.metrics,
        }
        connection.execute(insert(checkpoints).values(row))


def _best(lines: dict[int, Record], there: dict[int, Path]) -> set[int]:
    """The steps to keep: by the reward on the validation rows, as the run itself finds its best, and of what has none
    the newest."""

    def worth(step: int) -> tuple[float, int]:
        reward = ((lines.get(step) or {}).get("validation") or {}).get("reward")
        return (float(reward), -step) if isinstance(reward, int | float) else (float("-inf"), step)

    return set(sorted(there, key=worth, reverse=True)[:KEPT])


def _line(follow: Follow, stage: str | None, step: int) -> Record:
    """The metrics of a step, of that stage or else the last one that had it."""
    found = [line for (of, at), line in follow.by_step.items() if at == step and stage in (None, of)]
    return found[-1] if found else {}


def _link(source: Path, target: Path) -> None:
    """`target` whole or not at all."""
    if target.is_dir():
        return
    aside = target.with_name(f".{target.name}")
    shutil.rmtree(aside, ignore_errors=True)
    with suppress(OSError):  # the run has dropped it just now
        shutil.copytree(source, aside, copy_function=link, ignore=shutil.ignore_patterns(*TRAINING))
        aside.rename(target)


def link(source: str, target: str) -> None:
    """The same file under another name, or where that cannot be, a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
