"""What a run that has finished leaves: a model, a table of its steps, and a job that has succeeded."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert

from sharpen.runs.listing import parsed
from sharpen.server import filing, ids
from sharpen.server.core import Server
from sharpen.server.jobs.change import add_event, move
from sharpen.server.jobs.show import tuned_name
from sharpen.server.supervisor.place import Place
from sharpen.server.supervisor.results import table, trained_tokens
from sharpen.server.supervisor.said import Record
from sharpen.server.tables import models


class NoModel(Exception):
    """A run that calls itself finished has no model."""


async def succeed(server: Server, job: Row[Any], place: Place, **fields: Any) -> None:
    """Register the model and the result file, and end the job, all in one transaction. Raises NoModel."""
    lines = await asyncio.to_thread(steps, place)
    model = await asyncio.to_thread(final_model, place)
    text = table(lines, job.method["type"])
    id = ids.new("file")
    await server.storage.write(id, text)
    values: dict[str, Any] = {"fields": fields, "tokens": trained_tokens(lines), "model": model}
    write = server.db.write(lambda connection: succeeded(connection, server, job, id, text, **values))
    await server.storage.acknowledged(id, write)


def succeeded(
    connection: Connection,
    server: Server,
    job: Row[Any],
    file: str,
    text: str,
    *,
    fields: dict[str, Any],
    tokens: int,
    model: Path,
) -> None:
    """`succeed`, in its transaction; `file` is the id of the result file, which holds `text`."""
    name = tuned_name(job.model, server.settings.organization, job.suffix, job.id)
    content = text.encode()
    digest = hashlib.sha256(content).hexdigest()
    filing.add(connection, job.project, "step_metrics.csv", filing.RESULTS, len(content), digest, file)
    row = {
        "id": name,
        "project": job.project,
        "created_at": int(time.time()),
        "job_id": job.id,
        "path": str(model.relative_to(server.settings.data_dir.absolute())),
        "base": job.model,
        "parameters": job.serves.get("parameters"),
    }
    connection.execute(insert(models).values(row))
    add_event(connection, job.id, f"New fine-tuned model created: {name}")
    move(
        connection,
        job.id,
        "succeeded",
        fine_tuned_model=name,
        trained_tokens=tokens,
        result_files=[file],
        **fields,
    )


def steps(place: Place) -> Sequence[Record]:
    """The lines of a run's metrics."""
    try:
        raw = (place.run / "metrics.jsonl").read_bytes().split(b"\n")
    except OSError:
        return []
    return [line for text in raw if (line := parsed(text)) and isinstance(line.get("step"), int)]


def final_model(place: Place) -> Path:
    """The model of the run's last stage. Raises NoModel."""
    found = [path.parent for path in place.run.glob("models/*/config.json")]
    order = [path.name.partition("-")[2] for path in sorted(place.run.glob("stages/*"))]
    found.sort(key=lambda path: order.index(path.name) if path.name in order else -1)
    if not found:
        raise NoModel("the run has finished without a model")
    return found[-1]
