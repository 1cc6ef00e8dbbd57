"""What the supervisor needs to start a job: its recipe, and the environment of its process."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from sqlalchemy import Row

from sharpen.server.core import Server
from sharpen.server.grading import translate as grading
from sharpen.server.jobs.translate import Options, environment, recipe
from sharpen.server.names import Served


class Prepared(NamedTuple):
    """A recipe as `sharpen run` takes it, written as YAML or JSON; and what its process's environment has besides."""

    recipe: dict[str, Any]
    environment: dict[str, str]


async def prepare(server: Server, row: Row[Any], *, judge_url: str, threads: int) -> Prepared:
    """The recipe of a queued job. `judge_url` is this server's own, `http://127.0.0.1:PORT/v1`.

    Raises APIError where its grader may not be used any more, as after a change of the operator's lists.
    """
    own = row.method[row.method["type"]]
    grader, hidden = None, dict[str, str]()
    if "grader" in own:
        grader = await asyncio.to_thread(
            grading.grader,
            own["grader"],
            server.settings,
            judge_url=judge_url,
            param="method.reinforcement.grader",
        )
        grader, hidden = grading.veiled(grader)
    validation = server.storage.path(row.validation_file).absolute() if row.validation_file else None
    options = Options(row.facts["rows"], threads, grader)
    training = server.storage.path(row.training_file).absolute()  # the process works in another folder
    job = dict(row._mapping)
    made = recipe(job, training, validation, Served.from_json(row.serves), options)
    return Prepared(made, {**environment(job), **hidden})
