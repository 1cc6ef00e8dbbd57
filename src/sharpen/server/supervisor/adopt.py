"""A run that was made on the command line becomes a job: with its events, checkpoints and model."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from sqlalchemy import Connection, Row, insert, select

from sharpen.errors import RunError
from sharpen.runs.listing import Entry, look
from sharpen.server import filing, ids, names
from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.jobs.body import Method
from sharpen.server.jobs.change import add_event, move
from sharpen.server.states import Status
from sharpen.server.storage import Received
from sharpen.server.supervisor import checkpoints
from sharpen.server.supervisor.follow import Follow, News, last_step
from sharpen.server.supervisor.place import Place
from sharpen.server.supervisor.results import table, trained_tokens
from sharpen.server.supervisor.success import NoModel, final_model, steps, succeeded
from sharpen.server.tables import jobs

METHODS: dict[str, Method] = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}
STANDS: dict[str, Status] = {
    "finished": "succeeded",
    "failed": "failed",
    "paused": "paused",
    "interrupted": "paused",
    "killed": "paused",
}
"""A run's state, and the job's; one that is paused may be resumed here."""

WHOLE = (".safetensors", ".bin", ".pt")
"""Files that are written once and for all: their copy may be the same file."""


def import_run(server: Server, path: Path, project: str) -> str:
    """Copy a run directory (its weights are linked where they can be), and make a job of it; returns the job's id.

    To be called where no event loop runs. Raises RunError for what is no run, or runs still.
    """
    entry = look(path.absolute())
    if entry.state not in STANDS or not (path / "recipe.yaml").is_file():
        raise RunError(
            "this run cannot be imported",
            value=f"{path}, {entry.state}{f': {entry.trouble}' if entry.trouble else ''}",
            remedy="Give the directory of a run that has ended",
        )
    recipe = cast(Mapping[str, Any], yaml.safe_load((path / "recipe.yaml").read_text("utf-8")) or {})
    stage = _stage(recipe, path)
    place = Place(server.settings.data_dir.absolute(), ids.new("ftjob"))
    place.make()
    _copy(path, place.run)
    follow = Follow(place)
    news = follow.poll()
    kept = checkpoints.keep(place, follow, news.checkpoints)
    files = _sources(server, stage)
    row = _row(server, project, place, recipe, stage, entry, news)
    row |= {"training_file": files[0][0] if files else "", "validation_file": files[1][0] if len(files) > 1 else None}
    text = table(steps(place), METHODS[stage["type"]])
    result = ids.new("file")
    asyncio.run(server.storage.write(result, text))

    def change(connection: Connection) -> None:
        for id, name, received in files:
            filing.add(connection, project, name, "fine-tune", received.bytes, received.sha256, id)
        connection.execute(insert(jobs).values(row))
        job = connection.execute(select(jobs).where(jobs.c.id == place.job)).one()
        _events(connection, place.job, path, news)
        if kept:
            checkpoints.note(connection, server.settings, job, kept)
        _end(connection, server, job, place, STANDS[entry.state], entry, result, text)

    try:
        server.db.change(change)
    except BaseException:
        shutil.rmtree(place.run, ignore_errors=True)
        raise
    for id in (result, *(id for id, _, _ in files)):
        asyncio.run(server.storage.settle(id))
    return place.job


def _stage(recipe: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The run's last stage that makes a model to ask."""
    found = [stage for stage in recipe.get("stages") or () if stage.get("type") in METHODS]
    if not found:
        raise RunError("the run has no stage of a job's kind", value=str(path), remedy="sft, dpo and rft are such")
    return cast(Mapping[str, Any], found[-1])


def _copy(source: Path, target: Path) -> None:
    """A run that goes on here leaves the original as it is."""

    def one(file: str, to: str) -> None:
        (checkpoints.link if file.endswith(WHOLE) else shutil.copy2)(file, to)

    aside = target.with_name(f".{target.name}")
    shutil.copytree(source, aside, copy_function=one, ignore=shutil.ignore_patterns(".lock", "wandb", ".*.writing"))
    aside.rename(target)


def _sources(server: Server, stage: Mapping[str, Any]) -> list[tuple[str, str, Received]]:
    """The stage's files of rows, where they are plain ones that are still there: id, name and what was received."""
    found = []
    for name in ("data", "validation"):
        source = stage.get(name)
        path = Path(str(source.get("path"))) if isinstance(source, Mapping) and source.get("path") else None
        if path is None or path.suffix != ".jsonl" or not path.is_file():
            break
        id = ids.new("file")
        received = asyncio.run(server.storage.write(id, path.read_text("utf-8")))
        found.append((id, path.name, received))
    return found


def _row(
    server: Server,
    project: str,
    place: Place,
    recipe: Mapping[str, Any],
    stage: Mapping[str, Any],
    entry: Entry,
    news: News,
) -> dict[str, Any]:
    kind = METHODS[stage["type"]]
    model = str(recipe.get("model"))
    numbers = {
        "n_epochs": stage.get("epochs") or 1,
        "batch_size": stage.get("batch_size") or stage.get("prompts_per_step") or 1,
        "learning_rate_multiplier": 1.0,
    }
    began = entry.began or time.time()
    return {
        "id": place.job,
        "project": project,
        "created_at": int(began),
        "made_at": began,
        "status": "running",
        "model": Path(model).name,
        "serves": {**_served(server, model, project).as_json(), "shown": Path(model).name},
        "suffix": None,
        "seed": int(recipe.get("seed") or 0),
        "method": {"type": kind, kind: {"hyperparameters": numbers}},
        "hyperparameters": numbers,
        "integrations": [],
        "result_files": [],
        "warnings": ["imported from the command line"],
        "body_hash": "",
        "facts": {},
        "wanted": "run",
        "judges": [],
        "attempts": 0,
        "not_before": 0,
        "progress": last_step(news) or {},
        "seconds": entry.seconds,
        "detail": {"imported": True},
    }


def _served(server: Server, model: str, project: str) -> names.Served:
    """What serves the base; a folder or hub id that clients have no name for is served as it is."""
    try:
        return server.db.look(lambda connection: names.resolve(connection, server.settings, model, project))
    except APIError:
        return names.Served(model, "local", model)


def _events(connection: Connection, job: str, path: Path, news: News) -> None:
    add_event(connection, job, f"Imported from the run {path.name}")
    for told in news.told:
        message, level, data = told.said
        add_event(connection, job, message, level, told.type, data, told.id, told.at)


def _end(
    connection: Connection,
    server: Server,
    job: Row[Any],
    place: Place,
    to: Status,
    entry: Entry,
    result: str,
    text: str,
) -> None:
    if to == "succeeded":
        try:
            model = final_model(place)
        except NoModel as fault:
            raise RunError(str(fault), value=str(entry.path), remedy="Resume it on the command line first") from fault
        told = trained_tokens(steps(place))
        succeeded(connection, server, job, result, text, fields={}, tokens=told, model=model)
        return
    error = {"code": "server_error", "message": entry.cause or "the run failed", "param": None}
    fields: dict[str, Any] = {"error": error} if to == "failed" else {}
    message = f"The run is {entry.state}{f': {entry.cause}' if entry.cause else ''}"
    move(connection, job.id, to, message=message, **fields)
