"""A model's name means what the operator says, then what is on this machine, then what the project has tuned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from sharpen.models import registry
from sharpen.server import names
from sharpen.server.database import Database
from sharpen.server.errors import APIError
from sharpen.server.names import Served
from sharpen.server.settings import Settings
from sharpen.server.tables import checkpoints, jobs, models, permissions

HOUSE = "smollm2-135m-instruct"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("SHARPEN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(names, "_HERE", set())
    (tmp_path / "own").mkdir()
    return Settings.model_validate(
        {
            "data_dir": tmp_path / "data",
            "models": {
                "gpt-4.1-mini": HOUSE,
                "gpt-4.1": str(tmp_path / "own"),
                "far": {"base_url": "https://host/v1", "model": "theirs", "api_key_env": "THEIR_KEY"},
            },
            "judges": {"gpt-4o": str(tmp_path / "own")},
        }
    )


@pytest.fixture
def db(settings: Settings) -> Database:
    settings.data_dir.mkdir()
    return Database(settings.database_url)


def fetch_house() -> None:
    folder = registry.cached(HOUSE)
    folder.mkdir(parents=True)
    (folder / registry.MARKER).write_text("{}")


def resolve(db: Database, settings: Settings, name: str, project: str = "default") -> Served:
    return db.look(lambda connection: names.resolve(connection, settings, name, project))


def fault(db: Database, settings: Settings, name: str, project: str = "default") -> dict[str, Any]:
    with pytest.raises(APIError) as caught:
        resolve(db, settings, name, project)
    assert caught.value.status == 404
    return caught.value.body


def test_the_operators_map_comes_first(db: Database, settings: Settings) -> None:
    fetch_house()
    assert resolve(db, settings, "gpt-4.1-mini") == Served("gpt-4.1-mini", "local", HOUSE, 134_515_008)
    assert resolve(db, settings, "gpt-4.1").path_or_alias == str(settings.data_dir.parent / "own")
    far = resolve(db, settings, "far")
    assert (far.kind, far.base_url, far.remote_model, far.api_key_env) == (
        "external",
        "https://host/v1",
        "theirs",
        "THEIR_KEY",
    )
    assert Served.from_json({**far.as_json(), "shown": "more"}) == far


def test_models_of_the_house_are_those_that_are_here(db: Database, settings: Settings) -> None:
    assert fault(db, settings, HOUSE)["code"] == "model_not_found"
    assert "sharpen models pull" in fault(db, settings, "gpt-4.1-mini")["message"]
    fetch_house()
    assert resolve(db, settings, HOUSE) == Served(HOUSE, "local", HOUSE, 134_515_008)
    assert names.house() == [HOUSE]


@pytest.mark.parametrize(
    "name", ["", "gpt-5", "/etc", "../own", "HuggingFaceTB/SmolLM2-135M", "judge:gpt-4o", "x" * 999]
)
def test_nothing_else_is_a_model(db: Database, settings: Settings, name: str) -> None:
    body = fault(db, settings, name)
    assert body["code"] == "model_not_found" and body["param"] == "model" and len(body["message"]) < 300


def tune(db: Database, settings: Settings) -> None:
    job: dict[str, Any] = {column.name: None for column in jobs.c}
    job |= {"id": "ftjob-1", "project": "a", "created_at": 1, "status": "succeeded", "model": HOUSE, "serves": {}}
    job |= {"seed": 1, "method": {}, "hyperparameters": {}, "training_file": "file-1", "result_files": []}
    job |= {"warnings": [], "body_hash": "", "wanted": "run", "judges": [], "attempts": 0, "not_before": 0}
    job |= {"progress": {}, "seconds": 0, "detail": {}, "attempt": 0, "made_at": 1.0, "facts": {}}
    run = settings.data_dir / "runs" / "ftjob-1"
    (run / "models" / "sft").mkdir(parents=True)
    (run / "stages" / "01-sft" / "checkpoints" / "step-00040").mkdir(parents=True)
    tuned = {"id": "ft:a", "project": "a", "created_at": 1, "job_id": "ftjob-1", "base": HOUSE, "parameters": 5}
    point = {"id": "ftckpt-1", "job_id": "ftjob-1", "created_at": 1, "step_number": 40, "metrics": {}}

    with db._engine.begin() as connection:
        connection.execute(insert(jobs).values(job))
        connection.execute(insert(models).values(tuned | {"path": "runs/ftjob-1/models/sft"}))
        connection.execute(insert(checkpoints).values(point | {"model": "ft:a:ckpt-step-40"}))


def test_tuned_models_and_checkpoints_are_their_projects_and_those_permitted(db: Database, settings: Settings) -> None:
    tune(db, settings)
    run = (settings.data_dir / "runs" / "ftjob-1").absolute()
    assert resolve(db, settings, "ft:a", "a") == Served("ft:a", "local", str(run / "models/sft"), 5)
    folder = run / "stages/01-sft/checkpoints/step-00040"
    assert resolve(db, settings, "ft:a:ckpt-step-40", "a").path_or_alias == str(folder)
    for name in ("ft:a", "ft:a:ckpt-step-40"):
        theirs, nobodys = (fault(db, settings, each, "b")["message"] for each in (name, "ft:none"))
        assert theirs.replace(name, "ft:none") == nobodys, "another project's is as none"
        with db._engine.begin() as connection:
            row = {"id": f"cp-{name}", "model": name, "project": "b", "created_at": 1}
            connection.execute(insert(permissions).values(row))
        assert resolve(db, settings, name, "b") == resolve(db, settings, name, "a")


def test_a_checkpoint_whose_files_are_gone_is_no_model(db: Database, settings: Settings) -> None:
    tune(db, settings)
    (settings.data_dir / "runs/ftjob-1/stages/01-sft/checkpoints/step-00040").rmdir()
    fault(db, settings, "ft:a:ckpt-step-40", "a")


def test_judges_have_a_map_of_their_own(settings: Settings) -> None:
    assert names.resolve_judge(settings, "gpt-4o").name == "gpt-4o"
    with pytest.raises(APIError) as caught:
        names.resolve_judge(settings, "gpt-4.1")
    assert caught.value.body["code"] == "unmapped_judge"


def test_the_server_imports_no_torch() -> None:
    code = "import sys, sharpen.server.app; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
