"""The supervisor with the real `sharpen run` on a tiny model: paused, resumed, killed, asked by its checkpoints' names;
and a run of the command line that becomes a job."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from sharpen.errors import RunError
from sharpen.server import names
from sharpen.server.supervisor.adopt import import_run
from sharpen.server.supervisor.process import Trainer, command
from sharpen.server.tables import checkpoints, models
from tests.runs.lab import World
from tests.server.supervisor_lab import Shop, at_work

ROWS = [
    {"messages": [{"role": "user", "content": f"count {n}"}, {"role": "assistant", "content": f"{n}ab"}]}
    for n in range(48)
]


def a_run(folder: Path, *events: str) -> Path:
    """The files of a run of three steps that ended with these events."""
    run = folder / "a-run"
    (run / "models/sft").mkdir(parents=True)
    (run / "models/sft/config.json").write_text("{}")
    (run / "models/sft/model.safetensors").write_text("weights")
    place = run / "stages/01-sft/checkpoints/step-00002"
    place.mkdir(parents=True)
    (place / "adapter_config.json").write_text("{}")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    stage = {"type": "sft", "name": "sft", "epochs": 2, "batch_size": 4, "data": {"path": str(rows)}}
    (run / "recipe.yaml").write_text(json.dumps({"model": "/models/tiny", "seed": 3, "stages": [stage]}))
    line = {"stage": "sft", "type": "sft", "steps": 3, "loss": 0.5, "tokens": {"trained": 5}}
    (run / "metrics.jsonl").write_text("".join(json.dumps({**line, "step": step}) + "\n" for step in (1, 2, 3)))
    told = [
        {"time": 1.0, "event": "started", "model": "tiny"},
        {"time": 2.0, "event": "checkpoint", "stage": "sft", "step": 2, "path": str(place.relative_to(run))},
        *({"time": 3.0, "event": event, "cause": "so"} for event in events),
    ]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in told))
    (run / "summary.json").write_text(json.dumps({"schema_version": 1, "status": events[-1] if events else "?"}))
    return run


def test_a_run_of_the_command_line_becomes_a_job_that_has_succeeded(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    run = a_run(tmp_path, "finished")
    job = import_run(shop.server, run, "default")
    row = shop.row(job)
    assert (row.status, row.trained_tokens, row.model) == ("succeeded", 15, "tiny")
    shown = shop.ask("GET", f"/v1/fine_tuning/jobs/{job}").json()
    assert shown["fine_tuned_model"].startswith("ft:tiny:sharpen:")
    model = shop.server.db.look(lambda connection: connection.execute(select(models)).one())
    assert (shop.server.settings.data_dir / model.path / "model.safetensors").samefile(
        run / "models/sft/model.safetensors"
    )
    [kept] = shop.server.db.look(lambda connection: connection.execute(select(checkpoints)).all())
    assert kept.step_number == 2
    rows = shop.ask("GET", f"/v1/files/{row.training_file}/content").text.splitlines()
    assert len(rows) == len(ROWS)
    assert shop.ask("GET", f"/v1/files/{row.result_files[0]}/content").text.count("\n") == 4
    shop.close()


@pytest.mark.parametrize(("events", "status"), [(("interrupted",), "paused"), (("failed",), "failed"), ((), "paused")])
def test_a_run_that_has_not_finished_is_imported_as_it_stands(
    tmp_path: Path, events: tuple[str, ...], status: str
) -> None:
    shop = Shop(tmp_path)
    run = a_run(tmp_path, *events)
    job = import_run(shop.server, run, "default")
    assert shop.row(job).status == status
    before = (run / "events.jsonl").read_bytes()
    with (shop.place(job).run / "events.jsonl").open("a") as file:
        file.write("{}\n")
    assert (run / "events.jsonl").read_bytes() == before, "a run that goes on here leaves the original as it is"
    shop.close()


def test_what_is_no_run_is_not_imported(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    with pytest.raises(RunError):
        import_run(shop.server, tmp_path, "default")
    shop.close()


@pytest.mark.long
def test_a_real_job_is_paused_resumed_killed_and_succeeds(tmp_path: Path, world: World) -> None:
    shop = Shop(tmp_path, models={"tiny": world.model}, cores=1, job_threads=1)
    file = shop.file(ROWS)
    hyperparameters = {"n_epochs": 3, "batch_size": 2}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    answer = shop.ask("POST", "/v1/fine_tuning/jobs", {"model": "tiny", "training_file": file, "method": method})
    job = answer.json()["id"]

    async def script() -> None:
        async with at_work(shop.supervisor(command)) as supervisor:
            await shop.when(job, lambda row: row.progress.get("step", 0) >= 2, 120)
            shop.wants(job, "pause")
            supervisor.wake()
            row = await shop.until(job, "paused", seconds=120)
            assert 0 < row.progress["step"] < 72
            shop.wants(job, "resume")
            supervisor.wake()
            await shop.when(job, lambda now: now.progress.get("step", 0) > row.progress["step"] + 2, 120)
            trainer = Trainer.adopted(shop.place(job))
            if trainer and trainer.pid:
                os.kill(trainer.pid, signal.SIGKILL)
            await shop.until(job, "succeeded", seconds=120)

    asyncio.run(script())
    steps = [told.data["step"] for told in shop.told(job) if told.type == "metrics"]
    assert steps == list(range(1, 73))
    row = shop.row(job)

    def folders(connection: Connection) -> list[str]:
        told = [row.fine_tuned_model, *connection.execute(select(checkpoints.c.model)).scalars()]
        return [names.resolve(connection, shop.server.settings, name, "default").path_or_alias for name in told]

    final, *kept = shop.server.db.look(folders)
    assert (Path(final) / "model.safetensors").is_file()
    assert kept and all((Path(path) / "adapter_model.safetensors").is_file() for path in kept)
    assert str(tmp_path) not in json.dumps([told.message for told in shop.told(job)])
    shop.close()
