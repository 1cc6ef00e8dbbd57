"""When a job will be done, by the seconds a token that finished jobs of its kind took; and its budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, or_, select

from sharpen.server.errors import invalid
from sharpen.server.tables import jobs

KNOWN = 10
"""So many of the latest finished jobs are looked at."""

LONGEST = 525_600.0
"""Minutes of a budget at most: a year."""


def budget(metadata: Mapping[str, str] | None, otherwise: float | None) -> float | None:
    """Minutes after which a job pauses: the fewer of `metadata.budget_minutes` and the server's. Raises APIError."""
    said = (metadata or {}).get("budget_minutes")
    if said is None:
        return otherwise
    try:
        minutes = float(said)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= LONGEST:
        raise invalid(
            f'`metadata.budget_minutes` should be a number of minutes above 0, such as "30" (got {said[:40]!r})',
            "metadata.budget_minutes",
        )
    return minutes if otherwise is None else min(minutes, otherwise)


def base_of(model: str) -> str:
    """The name of a model before it was tuned."""
    return model.split(":")[1] if model.startswith("ft:") and ":" in model[3:] else model


def rate(connection: Connection, model: str, method: str) -> float | None:
    """Seconds a token of a file's epoch, the median of the latest jobs of this base and method; None: none is known."""
    base = base_of(model)
    query = (
        select(jobs.c.seconds, jobs.c.facts, jobs.c.hyperparameters, jobs.c.method)
        .where(jobs.c.status == "succeeded", jobs.c.seconds > 0)
        .where(or_(jobs.c.model == base, jobs.c.model.startswith(f"ft:{base}:", autoescape=True)))
        .order_by(jobs.c.made_at.desc())
        .limit(KNOWN)
    )
    rates = sorted(
        row.seconds / (row.facts["tokens"] * row.hyperparameters["n_epochs"])
        for row in connection.execute(query)
        if row.method["type"] == method and row.facts.get("tokens")
    )
    return rates[len(rates) // 2] if rates else None


def estimate(connection: Connection, model: str, method: str, tokens: int, epochs: float) -> tuple[int | None, str]:
    """The second in which a job will be done if it starts now, and how that is known."""
    per_token = rate(connection, model, method)
    work = f"{tokens} tokens × {epochs:g} epochs"
    if per_token is None or not tokens:
        return None, f"not known: no {method} job of {base_of(model)} has finished here yet; {work}"
    seconds = per_token * tokens * epochs
    why = f"{seconds:.0f} s: {work} × {per_token:.3g} s, as earlier jobs took"
    return round(time.time() + seconds), why


def finish(row: Row[Any], now: float) -> int | None:
    """When a job will be done: by its own pace once it has steps, before that by the estimate of its whole length, as
    if what is left of it began now. None: it has ended or pauses, or nothing is known."""
    progress: dict[str, Any] = row.progress
    if row.status == "running" and progress.get("step") and progress.get("seconds"):
        left = max(0, int(progress.get("steps", 0)) - int(progress["step"]))
        return round(now + float(progress["seconds"]) / int(progress["step"]) * left)
    if row.estimated_finish is None or row.status not in ("validating_files", "queued", "running"):
        return None
    return round(now) + int(row.estimated_finish) - int(row.created_at)
