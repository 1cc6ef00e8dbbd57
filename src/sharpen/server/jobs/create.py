"""A job is made: asked, checked, written down with its first events in one transaction."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, insert, null
from sqlalchemy.exc import IntegrityError

from sharpen.server import ids, names
from sharpen.server.audit import audit
from sharpen.server.core import Server
from sharpen.server.errors import invalid
from sharpen.server.grading import translate as grading
from sharpen.server.jobs import retries
from sharpen.server.jobs.body import JobBody
from sharpen.server.jobs.change import Level, add_events
from sharpen.server.jobs.estimate import budget
from sharpen.server.jobs.files import Files, facts, fits, look
from sharpen.server.jobs.hyperparameters import settled
from sharpen.server.jobs.room import Room
from sharpen.server.jobs.validate import VALIDATED, checked, estimated
from sharpen.server.keys import Caller
from sharpen.server.settings import Settings
from sharpen.server.tables import jobs

HERE = "http://127.0.0.1/v1"
"""Stands for this server's address while a grader is only checked."""


class Made(NamedTuple):
    """A job, and whether an earlier request had made it."""

    job: Row[Any]
    replayed: bool


async def create(
    server: Server, caller: Caller, body: JobBody, raw: Mapping[str, Any], headers: Mapping[str, str]
) -> Made:
    """The job that a request asks for, or has made already. Raises APIError.

    `raw` is the body as it was sent, by which requests are told apart.
    """
    _has_trackers(body)
    request = retries.request(headers, caller, raw)
    before = await server.db.read(lambda connection: _look(connection, server.settings, request, body))
    if isinstance(before, Row):
        return Made(before, True)
    served, sources = before
    judges = await _judges(server.settings, body)
    known: dict[str, Any] = {}
    if not sources.waits(body.kind):
        known = await facts(server, caller.project, body.kind, sources)
        fits(known)
    row = _row(server.settings, caller, body, request, served, known) | {"judges": judges}
    if known:
        checked(row, served, known["rows"])
    try:
        return await server.db.write(lambda connection: _written(connection, server.room, caller, request, row))
    except IntegrityError:  # another server on this database was quicker with the same Idempotency-Key
        first = await server.db.read(lambda connection: retries.earlier(connection, request))
        if first is None:
            raise
        return Made(first, True)


def _look(
    connection: Connection, settings: Settings, request: retries.Request, body: JobBody
) -> Row[Any] | tuple[names.Served, Files]:
    """The job that the request has made already; else what serves its model, and its files."""
    if found := retries.earlier(connection, request):
        return found
    sources = look(connection, request.project, body.training_file, body.validation_file)
    served = names.resolve(connection, settings, body.model, request.project)
    if served.kind != "local":
        raise invalid(
            f"The model {body.model!r} is served by another server, and cannot be fine-tuned here",
            "model",
            "model_not_fine_tunable",
        )
    if (folder := Path(served.path_or_alias)).is_absolute() and not (folder / "config.json").is_file():
        raise invalid(
            f"{body.model!r} is a checkpoint, an adapter without its base; go on from the job's final model",
            "model",
            "model_not_fine_tunable",
        )
    return served, sources


async def _judges(settings: Settings, body: JobBody) -> list[str]:
    """The judges on this server that the job's grader asks. Raises APIError for a grader that is none."""
    if body.kind != "reinforcement" or body.reinforcement is None:
        return []
    param = "method.reinforcement.grader"
    made = await asyncio.to_thread(grading.grader, body.reinforcement.grader, settings, judge_url=HERE, param=param)
    return grading.judges_of(made)


def _row(
    settings: Settings,
    caller: Caller,
    body: JobBody,
    request: retries.Request,
    served: names.Served,
    known: dict[str, Any],
) -> dict[str, Any]:
    now = time.time()
    kind = body.kind
    own: dict[str, Any] = {"hyperparameters": body.asked()}
    if kind == "reinforcement" and body.reinforcement:
        own |= {"grader": body.reinforcement.grader, "response_format": body.reinforcement.response_format}
    return {
        "id": ids.new("ftjob"),
        "project": caller.project,
        "created_at": int(now),
        "made_at": now,
        "status": "queued" if known else "validating_files",
        "model": body.model,
        "serves": {**served.as_json(), "shown": shown(served)},
        "suffix": body.suffix,
        "seed": secrets.randbelow(2**31) if body.seed is None else body.seed,
        **settled({"type": kind, kind: own}, known),
        "facts": known,
        "metadata": body.metadata or null(),
        "integrations": [one.model_dump(exclude_none=True) for one in body.integrations or ()],
        "training_file": body.training_file,
        "validation_file": body.validation_file,
        "result_files": [],
        "warnings": [*_warnings(settings, body, served), *known.get("warnings", ())],
        "retry_key": request.key,
        "body_hash": request.body,
        "attempt": request.attempt,
        "wanted": "run",
        "attempts": 0,
        "not_before": 0,
        "progress": {},
        "budget_minutes": budget(body.metadata, settings.budget_minutes),
        "seconds": 0.0,
        "detail": {},
    }


def shown(served: names.Served) -> str:
    """What a client is told of the model that serves: an alias, or the last part of a path."""
    return served.name if served.name.startswith("ft:") else Path(served.path_or_alias or served.name).name


def _has_trackers(body: JobBody) -> None:
    if body.integrations and find_spec("wandb") is None:
        raise invalid(
            "Weights & Biases is not installed on this server; its operator installs `sharpen[trackers]`",
            "integrations",
            "integration_unavailable",
        )


def _warnings(settings: Settings, body: JobBody, served: names.Served) -> list[str]:
    found = []
    if body.model in settings.models:
        found.append(f"{body.model} is served here by {shown(served)}{_size(served.parameters)}")
    if body.training_type is not None:
        found.append("trainingType has no meaning here")
    return found


def _size(parameters: int | None) -> str:
    """` (0.135 B)`."""
    if not parameters:
        return ""
    return f" ({parameters / 1e9:.3g} B)" if parameters >= 1e6 else f" ({parameters:,} parameters)"


def _written(connection: Connection, room: Room, caller: Caller, request: retries.Request, row: dict[str, Any]) -> Made:
    if found := retries.earlier(connection, request):
        return Made(found, True)
    look(connection, caller.project, row["training_file"], row["validation_file"])  # deleted since it was looked at?
    room.take(connection, caller.project)
    if row["facts"]:
        row = row | estimated(connection, row)
    made = connection.execute(insert(jobs).values(row).returning(*jobs.c)).one()
    told: list[tuple[Level, str]] = [("info", f"Created fine-tuning job: {row['id']}")]
    told += [("warn", warning) for warning in row["warnings"]]
    told.append(("info", f"Validating training file: {row['training_file']}"))
    if row["status"] == "queued":
        told.append(("info", VALIDATED))
    add_events(connection, row["id"], told)
    audit(connection, caller, "job.create", row["id"], model=row["model"], method=row["method"]["type"])
    return Made(made, False)
