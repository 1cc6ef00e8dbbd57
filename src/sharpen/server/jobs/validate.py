"""A job's last look before it is queued: does it make a recipe, and, where its files are large, do they fit?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from sharpen.config.load import parse
from sharpen.errors import SharpenError
from sharpen.server import errors, names
from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.jobs.change import add_event, move
from sharpen.server.jobs.estimate import estimate
from sharpen.server.jobs.files import facts, fits, look
from sharpen.server.jobs.hyperparameters import settled
from sharpen.server.jobs.translate import Options, recipe
from sharpen.server.tables import jobs

VALIDATED = "Files validated, moving job to queued state"


def checked(row: Mapping[str, Any], served: names.Served, rows: int) -> None:
    """Raise APIError where the job makes no recipe, as for a `response_format` that nothing can be held to."""
    grader = {"type": "string_check", "input": "", "reference": "", "operation": "eq"}  # the own one is checked before
    validation = Path("validation.jsonl") if row["validation_file"] else None
    try:
        parse(recipe(row, Path("training.jsonl"), validation, served, Options(rows, 1, grader)))
    except SharpenError as error:
        told = errors.of(error)
        place = str(told.body["param"] or "")
        told.body["param"] = "method.reinforcement.response_format" if "response_format" in place else "method"
        raise told from None


def estimated(connection: Connection, row: Mapping[str, Any]) -> dict[str, Any]:
    """When the job would be done if it began now, and how that is known."""
    epochs = float(row["hyperparameters"]["n_epochs"])
    at, why = estimate(connection, row["model"], row["method"]["type"], row["facts"]["tokens"], epochs)
    return {"estimated_finish": at, "facts": {**row["facts"], "estimate": why}}


async def validate(server: Server, job_id: str) -> None:
    """Check the files of a job that is `validating_files`, which takes as long as they are: it is queued then, or has
    failed. The supervisor calls this, again after a restart of the server; of two calls one has an effect.

    Raises APIError for what is no fault of the job.
    """
    row = await server.db.read(lambda connection: connection.execute(select(jobs).where(jobs.c.id == job_id)).first())
    if row is None or row.status != "validating_files":
        return
    kind = row.method["type"]
    try:
        sources = await server.db.read(
            lambda connection: look(connection, row.project, row.training_file, row.validation_file)
        )
        known = await facts(server, row.project, kind, sources)
        fits(known)
        columns = {**settled(row.method, known), "facts": known, "warnings": [*row.warnings, *known["warnings"]]}
        checked({**row._mapping, **columns}, names.Served.from_json(row.serves), known["rows"])
    except APIError as error:
        if error.status >= 500:  # ours, such as a full disk: the supervisor asks again
            raise
        fault = error
        await server.db.write(lambda connection: _failed(connection, job_id, fault))
        return
    await server.db.write(lambda connection: _validated(connection, {**row._mapping, **columns}))


def _validated(connection: Connection, row: Mapping[str, Any]) -> None:
    if _status(connection, row["id"]) == "validating_files":
        columns = {name: row[name] for name in ("method", "hyperparameters", "facts", "warnings")}
        columns |= estimated(connection, row)
        for warning in row["facts"]["warnings"]:
            add_event(connection, row["id"], warning, level="warn")
        move(connection, row["id"], "queued", message=VALIDATED, **columns)


def _failed(connection: Connection, job_id: str, error: APIError) -> None:
    if _status(connection, job_id) == "validating_files":
        param = error.body["param"]
        code = f"invalid_{param}" if param in ("training_file", "validation_file") else error.body["code"]
        told = {"code": code, "message": error.body["message"], "param": param}
        move(connection, job_id, "failed", message=told["message"], error=told)


def _status(connection: Connection, job_id: str) -> str | None:
    found: str | None = connection.execute(select(jobs.c.status).where(jobs.c.id == job_id)).scalar_one_or_none()
    return found
