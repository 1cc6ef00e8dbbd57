"""What a job's process is started with: a recipe on the disk, and an environment."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, NamedTuple

import yaml
from sqlalchemy import Connection, Row

from sharpen.runs.store import write_text
from sharpen.server.core import Server
from sharpen.server.grading import tokens
from sharpen.server.grading import translate as grading
from sharpen.server.jobs.change import move
from sharpen.server.jobs.prepare import prepare
from sharpen.server.supervisor.place import Place
from sharpen.server.supervisor.process import environment
from sharpen.server.tables import jobs

TOKEN_DAYS = 30
"""For so long a process may ask its judges."""


class Launch(NamedTuple):
    """A start of a job's process."""

    resumes: bool
    environment: dict[str, str]


async def prepared(server: Server, row: Row[Any], place: Place) -> Launch:
    """Write the recipe, unless the run has begun. Raises APIError where the job may not be run any more."""
    resumes = await asyncio.to_thread((place.run / "recipe.yaml").is_file)
    threads = server.settings.threads_of_a_job
    if row.detail.get("imported"):
        return Launch(True, environment(threads, {}, ()))
    made = await prepare(server, row, judge_url=judge_url(server), threads=threads)
    await asyncio.to_thread(_write, place, made.recipe)
    grader = made.recipe["stages"][0].get("grader")
    keys = [part["api_key_env"] for _, part in grading.parts(grader) if part.get("api_key_env")] if grader else []
    if row.integrations:
        keys += [name for name in os.environ if name.startswith("WANDB_")]
    more = dict(made.environment)
    if grader and (models := grading.models_of(grader)):
        expires = time.time() + TOKEN_DAYS * 86_400
        more[tokens.VARIABLE] = tokens.issue(server.secret, row.id, row.project, models, expires)
    return Launch(resumes, environment(threads, more, keys))


def launched(connection: Connection, row: Row[Any], began: float) -> Row[Any]:
    """Note that a process is started now. Raises Illegal where the job is queued no more."""
    detail = {**row.detail, "began": began, "spent": row.seconds}
    resumed = "Fine-tuning job goes on" if row.detail.get("began") else None
    return move(connection, row.id, "running", message=resumed, attempts=jobs.c.attempts + 1, detail=detail)


def judge_url(server: Server) -> str:
    """This server's own address, for its jobs."""
    return grading.own_url(server.settings)


def _write(place: Place, recipe: dict[str, Any]) -> None:
    place.make()
    write_text(place.recipe, yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False))
