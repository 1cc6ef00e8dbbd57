"""Names of models: what a client calls a model, and what serves it.

The operator's map comes first, then the house's own models that are on this machine, then what the project has tuned
or was permitted to use. Nothing else is a model here: no path and no hub id of a client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Row, exists, select

from sharpen.errors import ModelError
from sharpen.models import hub, registry
from sharpen.models.bases import BASES
from sharpen.models.folder import described
from sharpen.server.errors import APIError, invalid
from sharpen.server.settings import External, Mapped, Settings
from sharpen.server.tables import checkpoints, jobs, models, permissions


@dataclass(frozen=True, slots=True)
class Served:
    """A model's name, and what answers under it."""

    name: str
    kind: Literal["local", "external"]
    path_or_alias: str = ""
    """Of a local one: an alias, a hub id or a folder, all on this machine."""

    parameters: int | None = None
    """All its numbers, where they are known."""

    base_url: str | None = None
    remote_model: str | None = None
    api_key_env: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Served:
        """What `as_json` made; other keys are left alone."""
        return cls(**{name: value[name] for name in cls.__dataclass_fields__ if name in value})


def resolve(connection: Connection, settings: Settings, name: str, project: str) -> Served:
    """What serves a name for a project. Raises APIError 404 `model_not_found`."""
    if name in settings.models:
        return _mapped(name, settings.models[name])
    if _at_home(name):
        return Served(name, "local", name, BASES[name].parameters)
    if row := tuned(connection, name, project):
        path = settings.data_dir.absolute() / row.path
        if path.is_dir():
            return Served(name, "local", str(path), row.parameters)
    if (path_of := _checkpoint(connection, settings, name, project)) is not None:
        return Served(name, "local", str(path_of))
    raise unknown(name)


def resolve_judge(settings: Settings, name: str) -> Served:
    """What serves a judge. Raises APIError 400 `unmapped_judge` where the operator maps none of that name."""
    if name not in settings.judges:
        raise unmapped(settings, name, "model")
    return _mapped(name, settings.judges[name])


def unmapped(settings: Settings, name: object, param: str) -> APIError:
    """400 for a judge that the operator maps to nothing; tells which ones there are."""
    mapped = ", ".join(sorted(settings.judges)) or "none"
    return invalid(
        f"{param}: no judge of this name is mapped here (got {name!r:.120}). Mapped are: {mapped}. The operator adds "
        "to `judges:`; nothing else takes a judge's place.",
        param,
        "unmapped_judge",
    )


def unknown(name: str) -> APIError:
    """404: OpenAI's words for a model that is not there, or not for this project."""
    return APIError(
        404,
        f"The model {name[:80]!r} does not exist or you do not have access to it. GET /v1/models lists those here; "
        "the operator maps further names under `models:`.",
        code="model_not_found",
        param="model",
    )


def tuned(connection: Connection, name: str, project: str) -> Row[Any] | None:
    """The row of a tuned model that the project may use."""
    row = connection.execute(select(models).where(models.c.id == name)).first()
    return row if row and _may(connection, name, row.project, project) else None


def house() -> list[str]:
    """Aliases of the well-known models that are on this machine."""
    return [alias for alias in BASES if _at_home(alias)]


def checkpoint_folder(settings: Settings, job_id: str, step: int) -> Path | None:
    """Where a job's checkpoint is, if it still is: among those that the supervisor keeps, else in the run itself."""
    run = settings.data_dir.absolute() / "runs" / job_id
    kept = run / "checkpoints" / f"step-{step:05d}"
    found = [kept] if kept.is_dir() else sorted(run.glob(f"stages/*/checkpoints/step-{step:05d}"))
    return found[-1] if found else None


def _checkpoint(connection: Connection, settings: Settings, name: str, project: str) -> Path | None:
    query = select(checkpoints.c.step_number, checkpoints.c.job_id, jobs.c.project)
    row = connection.execute(query.join(jobs, jobs.c.id == checkpoints.c.job_id).where(checkpoints.c.model == name))
    if (found := row.first()) is None or not _may(connection, name, found.project, project):
        return None
    return checkpoint_folder(settings, found.job_id, found.step_number)


def _may(connection: Connection, name: str, owner: str, project: str) -> bool:
    if owner == project:
        return True
    given = exists().where(permissions.c.model == name, permissions.c.project == project)
    return bool(connection.execute(select(given)).scalar())


def _mapped(name: str, to: Mapped) -> Served:
    if isinstance(to, External):
        return Served(name, "external", base_url=to.base_url, remote_model=to.model, api_key_env=to.api_key_env)
    if to.local in BASES:
        if not _at_home(to.local):
            raise _absent(name, to.local)
        return Served(name, "local", to.local, BASES[to.local].parameters)
    path = Path(to.local).expanduser()
    if path.is_dir():
        return Served(name, "local", str(path.absolute()), _parameters(str(path)))
    found = hub.parse(to.local)
    if found is None or hub.here(found) is None:
        raise _absent(name, to.local)
    return Served(name, "local", to.local, _parameters(to.local))


def _absent(name: str, local: str) -> APIError:
    return APIError(
        404,
        f"The model {name!r} is mapped to {Path(local).name!r}, which is not on this server. Its operator fetches it "
        "with `sharpen models pull`.",
        code="model_not_found",
        param="model",
    )


_HERE: set[str] = set()


def _at_home(alias: str) -> bool:
    """Whether a well-known model is here; that it is, is remembered, as models of the hub's cache take long to find."""
    if alias in BASES and alias not in _HERE and registry.folder(alias) is not None:
        _HERE.add(alias)
    return alias in _HERE


def _parameters(name: str) -> int | None:
    try:
        return described(name).shape.parameters
    except ModelError:
        return None
