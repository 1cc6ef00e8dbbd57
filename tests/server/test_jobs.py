"""Jobs through the stock SDK, on a server that starts none of them."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
from sqlalchemy import Connection, insert, select

from sharpen.server.jobs import create as creation
from sharpen.server.jobs import files as job_files
from sharpen.server.jobs.change import move
from sharpen.server.jobs.prepare import prepare
from sharpen.server.jobs.show import tuned_name
from sharpen.server.jobs.validate import validate
from sharpen.server.tables import jobs, models
from tests.server.jobs_lab import GRADER, MODEL, PAIRS, PROMPTS, ROWS, Lab, with_checkpoints

JOBS = "/v1/fine_tuning/jobs"


def wrong(lab: Lab, status: int = 400, **asked: Any) -> dict[str, Any]:
    """The error that a body gets."""
    answer = lab.ask("POST", JOBS, {"model": MODEL, **asked})
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["message"] and error["type"]
    return error


def test_a_supervised_job_is_made_shown_and_listed(lab: Lab) -> None:
    training, validation = lab.file(ROWS[5:]), lab.file(ROWS[:5])

    async def script(client: openai.AsyncOpenAI) -> None:
        job = await client.fine_tuning.jobs.create(
            model=MODEL,
            training_file=training,
            validation_file=validation,
            suffix="my-model",
            seed=42,
            metadata={"team": "a"},
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
        )
        assert job.id.startswith("ftjob-") and job.object == "fine_tuning.job" and job.status == "queued"
        assert (job.seed, job.metadata, job.training_file, job.validation_file) == (
            42,
            {"team": "a"},
            training,
            validation,
        )
        assert job.method and job.method.supervised and job.method.supervised.hyperparameters
        numbers = job.method.supervised.hyperparameters
        assert (numbers.n_epochs, numbers.batch_size, numbers.learning_rate_multiplier) == (2, 1, 1.0)
        assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, 1)
        assert job.fine_tuned_model is None and job.finished_at is None and job.error is None
        assert job.result_files == [] and job.organization_id == "sharpen"
        assert job.model_extra and job.model_extra["sharpen"]["warnings"] == [
            f"{MODEL} is served here by smollm2-135m-instruct (0.135 B)"
        ]
        assert await client.fine_tuning.jobs.retrieve(job.id) == job
        assert (await client.fine_tuning.jobs.list(limit=1)).data[0].id == job.id
        events = (await client.fine_tuning.jobs.list_events(job.id)).data
        assert [event.message for event in events][-1] == f"Created fine-tuning job: {job.id}"
        assert [event.level for event in events] == ["info", "info", "warn", "info"]

    lab.run(script)


def test_a_dpo_job_has_its_beta(lab: Lab) -> None:
    training = lab.file(PAIRS)

    async def script(client: openai.AsyncOpenAI) -> None:
        job = await client.fine_tuning.jobs.create(
            model=MODEL,
            training_file=training,
            method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}},
        )
        assert job.method and job.method.dpo and job.method.dpo.hyperparameters
        assert job.method.dpo.hyperparameters.beta == 0.3
        assert job.method.dpo.hyperparameters.n_epochs == 2

    lab.run(script)


@pytest.mark.parametrize("nested", [True, False])
def test_a_reinforcement_job_has_its_grader_and_form(lab: Lab, nested: bool) -> None:
    training = lab.file(PROMPTS)
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    inner = {"name": "answer", "strict": True, "schema": schema}
    form = {"type": "json_schema", "json_schema": inner} if nested else {"type": "json_schema", **inner}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "response_format": form}}
    answer = lab.ask("POST", JOBS, {"model": MODEL, "training_file": training, "method": method})
    assert answer.status_code == 200, answer.text
    own = answer.json()["method"]["reinforcement"]
    assert own["grader"] == GRADER and own["response_format"] == form
    assert own["hyperparameters"]["eval_interval"] >= 1 and own["hyperparameters"]["reasoning_effort"] == "default"


def test_a_grader_that_is_none_is_refused_at_its_place(lab: Lab) -> None:
    training = lab.file(PROMPTS)
    for grader in ({"type": "psychic"}, {**GRADER, "operation": "resembles"}):
        method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        error = wrong(lab, training_file=training, method=method)
        assert error["param"].startswith("method.reinforcement.grader")


def test_an_unmapped_judge_is_refused(lab: Lab) -> None:
    judge = {"type": "score_model", "name": "j", "model": "gpt-4o", "input": [{"role": "user", "content": "Good?"}]}
    method = {"type": "reinforcement", "reinforcement": {"grader": judge}}
    assert wrong(lab, training_file=lab.file(PROMPTS), method=method)["code"] == "unmapped_judge"


def test_a_form_that_nothing_can_be_held_to_is_refused(lab: Lab) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "colour"}}}
    method = {"type": "reinforcement", "reinforcement": {"grader": GRADER, "response_format": form}}
    error = wrong(lab, training_file=lab.file(PROMPTS), method=method)
    assert error["param"] == "method.reinforcement.response_format"


def test_rows_that_do_not_fit_the_method_are_told_with_their_lines(lab: Lab) -> None:
    bad = lab.file([ROWS[0], {"messages": "none"}, ROWS[1]])
    error = wrong(lab, training_file=bad)
    assert error["param"] == "training_file" and "2" in error["message"]
    assert wrong(lab, training_file=lab.file(ROWS), validation_file=bad)["param"] == "validation_file"
    pairs = {"type": "dpo", "dpo": {}}
    assert wrong(lab, training_file=lab.file(ROWS), method=pairs)["param"] == "training_file"


def test_files_are_the_project_s_own_and_for_fine_tuning(lab: Lab) -> None:
    assert wrong(lab, training_file="file-none")["code"] == "file_not_found"
    assert wrong(lab, training_file=lab.file(ROWS, project="other"))["code"] == "file_not_found"
    assert wrong(lab, training_file=lab.file(ROWS, purpose="batch"))["code"] == "invalid_file_purpose"
    same = wrong(lab, training_file=lab.file(ROWS), validation_file=lab.file(ROWS))
    assert same["param"] == "validation_file"


def test_what_the_body_may_not_be(lab: Lab) -> None:
    good: dict[str, Any] = {"training_file": lab.file(ROWS)}
    assert wrong(lab, 404, **{**good, "model": "gpt-none"})["code"] == "model_not_found"
    assert wrong(lab, **good, suffix="s" * 65)["param"] == "suffix"
    assert wrong(lab, **good, suffix="a:b")["param"] == "suffix"
    assert wrong(lab, **good, seed=-1)["param"] == "seed"
    assert wrong(lab, **good, metadata={str(n): "" for n in range(17)})["param"] == "metadata"
    assert wrong(lab, **good, metadata={"k": "v" * 513})["param"] == "metadata.k"
    assert wrong(lab, **good, epochs=3)["param"] == "epochs"
    assert wrong(lab, **good, hyperparameters={"n_epochs": 0})["param"] == "hyperparameters.n_epochs"
    assert wrong(lab, **good, metadata={"budget_minutes": "soon"})["param"] == "metadata.budget_minutes"
    assert wrong(lab, **good, integrations=[{"type": "wandb", "wandb": {}}])["code"] == "missing_required_parameter"
    assert wrong(lab)["code"] == "missing_required_parameter"
    assert wrong(lab, **good, method={"type": "dpo", "supervised": {}})["param"] == "method"
    assert wrong(lab, **{**good, "model": "a\0b"})["param"] == "model"
    assert wrong(lab, **{**good, "training_file": "file-\0"})["param"] == "training_file"
    assert wrong(lab, **good, metadata={"a": "\0"})["param"] == "metadata.a"
    grader = json.dumps({**GRADER, "x": 1}).replace("1}", "NaN}")
    nan = '{"model": "m", "training_file": "f", "method": {"type": "reinforcement", "reinforcement": {"grader": %s}}}'
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    half = '{"model": "m", "training_file": "f", "metadata": {"\\ud800": "x"}}'
    for body in (
        "",
        "[]",
        "{",
        '"x"',
        half,
        nan % grader,
        nan % '{"type": "\\ud800"}',
        nan % deep,
        nan % deep[20000:-4000],
    ):
        answer = lab.ask("POST", JOBS, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, body


def test_a_tuned_model_can_be_tuned_further_but_no_checkpoint_and_no_model_elsewhere(tmp_path: Path) -> None:
    lab = Lab(tmp_path, models={"far": {"base_url": "https://far.example/v1", "model": "x"}})
    job, (checkpoint, *_) = with_checkpoints(lab, lab.key, "default", model="smollm2-135m-instruct")
    (lab.server.settings.data_dir / f"runs/{job}/stages/01-sft/checkpoints/step-00001").mkdir(parents=True)
    folder = lab.server.settings.data_dir / "runs" / job / "models" / "sft"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"max_position_embeddings": 4096}')
    name = tuned_name("smollm2-135m-instruct", "sharpen", "s", job)
    row = {"id": name, "project": "default", "created_at": 1, "path": f"runs/{job}/models/sft", "base": "smollm2"}
    lab.server.db.change(partial(Connection.execute, statement=insert(models).values(row)))
    training = lab.file(ROWS)
    made = lab.ask("POST", JOBS, {"model": name, "training_file": training})
    assert made.status_code == 200 and made.json()["model"] == name
    found = select(jobs).where(jobs.c.id == made.json()["id"])
    further = lab.server.db.look(lambda connection: connection.execute(found).one())
    prepared = asyncio.run(prepare(lab.server, further, judge_url="http://127.0.0.1:1/v1", threads=2))
    assert prepared.recipe["model"] == str(folder.absolute()) and prepared.recipe["threads"] == 2
    assert prepared.recipe["stages"][0]["max_length"] == 4096
    assert str(tmp_path) not in made.text
    for other in (checkpoint, "far"):
        answer = lab.ask("POST", JOBS, {"model": other, "training_file": training})
        assert answer.status_code == 400 and answer.json()["error"]["code"] == "model_not_fine_tunable", answer.text
    lab.close()


def test_integrations_are_echoed_and_refused_where_their_package_is_not_here(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {
        "training_file": lab.file(ROWS),
        "integrations": [{"type": "wandb", "wandb": {"project": "p"}}],
    }
    monkeypatch.setattr(creation, "find_spec", lambda name: object())
    answer = lab.ask("POST", JOBS, {"model": MODEL, **asked})
    assert answer.json()["integrations"] == asked["integrations"]
    query = select(jobs).where(jobs.c.id == answer.json()["id"])
    row = lab.server.db.look(lambda connection: connection.execute(query).one())
    prepared = asyncio.run(prepare(lab.server, row, judge_url="http://127.0.0.1:1/v1", threads=1))
    assert prepared.environment["WANDB_NAME"] == row.id
    assert prepared.recipe["report_to"] == ["wandb"]
    monkeypatch.setattr(creation, "find_spec", lambda name: None)
    assert wrong(lab, **asked)["code"] == "integration_unavailable"


def test_a_budget_is_the_fewer_minutes_of_two(lab: Lab) -> None:
    lab.server.settings = lab.server.settings.model_copy(update={"budget_minutes": 30.0})
    try:
        training = lab.file(ROWS)
        for said, counts in (("5", 5), ("60", 30), (None, 30)):
            metadata = None if said is None else {"budget_minutes": said}
            body = {"model": MODEL, "training_file": training, "metadata": metadata}
            assert lab.ask("POST", JOBS, body).json()["sharpen"]["budget_minutes"] == counts
    finally:
        lab.server.settings = lab.server.settings.model_copy(update={"budget_minutes": None})


def test_lists_come_in_pages_and_by_metadata(lab: Lab) -> None:
    training, key = lab.file(ROWS, project="pages"), lab.new_key("pages")

    async def script(client: openai.AsyncOpenAI) -> None:
        made = []
        for n in range(5):
            metadata = {"even": str(n % 2 == 0), "a.b": "c"} if n else None
            job = await client.fine_tuning.jobs.create(
                model=MODEL, training_file=training, seed=n, metadata=metadata or openai.omit
            )
            made.append(job.id)
        made.reverse()
        found = [job.id async for job in client.fine_tuning.jobs.list(limit=2)]
        assert found == made
        page = await client.fine_tuning.jobs.list(limit=2)
        assert [job.id for job in page.data] == made[:2] and page.has_more
        evens = await client.fine_tuning.jobs.list(metadata={"even": "True"})
        assert [job.id for job in evens.data] == [made[0], made[2]]
        both = await client.fine_tuning.jobs.list(metadata={"even": "True", "a.b": "x"})
        assert both.data == []
        none = await client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
        assert [job.id for job in none.data] == [made[4]]
        events = [event.id async for event in client.fine_tuning.jobs.list_events(made[0], limit=1)]
        assert len(events) == len(set(events)) == 4

    lab.run(script, key)
    for query in (
        "limit=0",
        "limit=x",
        "after=ftjob-none",
        "after=%00",
        "metadata=x",
        "metadata[%22]=x",
        "metadata[a]=%00",
    ):
        assert lab.ask("GET", f"{JOBS}?{query}").status_code == 400


def test_another_project_finds_nothing(lab: Lab) -> None:
    job = lab.ask("POST", JOBS, {"model": MODEL, "training_file": lab.file(ROWS)}).json()["id"]
    other, reader = lab.new_key("other"), lab.new_key(scopes=("read",))
    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/events?stream=true"),
        ("GET", "/checkpoints"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
    ]:
        there = lab.ask(method, f"{JOBS}/{job}{path}", key=other)
        nowhere = lab.ask(method, f"{JOBS}/ftjob-none{path}", key=other)
        assert there.status_code == nowhere.status_code == 404
        assert there.json()["error"]["message"].replace(job, "ftjob-none") == nowhere.json()["error"]["message"]
        if method == "POST":
            assert lab.ask(method, f"{JOBS}/{job}{path}", key=reader).status_code == 403
    assert job not in lab.ask("GET", JOBS, key=other).text


def test_pause_resume_and_cancel_take_a_job_along(lab: Lab) -> None:
    training = lab.file(ROWS)

    async def script(client: openai.AsyncOpenAI) -> None:
        job = await client.fine_tuning.jobs.create(model=MODEL, training_file=training)
        assert (await client.fine_tuning.jobs.pause(job.id)).to_dict()["status"] == "paused"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.fine_tuning.jobs.pause(job.id)
        assert caught.value.code == "job_not_pausable" and "paused" in caught.value.message
        assert (await client.fine_tuning.jobs.resume(job.id)).status == "queued"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.fine_tuning.jobs.resume(job.id)
        assert caught.value.code == "job_not_resumable"
        ended = await client.fine_tuning.jobs.cancel(job.id)
        assert ended.status == "cancelled" and ended.finished_at
        with pytest.raises(openai.BadRequestError) as caught:
            await client.fine_tuning.jobs.cancel(job.id)
        assert caught.value.code == "job_not_cancellable" and "cancelled" in caught.value.message

    lab.run(script)


def test_a_running_job_is_cancelled_when_its_process_has_ended(lab: Lab) -> None:
    job = lab.ask("POST", JOBS, {"model": MODEL, "training_file": lab.file(ROWS)}).json()["id"]
    lab.server.db.change(lambda connection: move(connection, job, "running"))

    async def script(client: openai.AsyncOpenAI) -> None:
        asked = asyncio.create_task(client.fine_tuning.jobs.cancel(job))
        wanted = select(jobs.c.wanted).where(jobs.c.id == job)
        while await lab.server.db.read(lambda connection: connection.execute(wanted).scalar_one()) != "cancel":
            await asyncio.sleep(0.01)
        await lab.server.db.write(lambda connection: move(connection, job, "queued"))  # the supervisor finds it dead
        assert (await asked).status == "cancelled"

    lab.run(script)


def test_a_project_that_has_too_many_unfinished_jobs_must_wait(tmp_path: Path) -> None:
    lab = Lab(tmp_path, limits={"queued_jobs": 2})
    body = {"model": MODEL, "training_file": lab.file(ROWS)}
    first, second, third = (lab.ask("POST", JOBS, body) for _ in range(3))
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert int(third.headers["Retry-After"]) > 0 and third.json()["error"]["code"] == "too_many_jobs"
    lab.ask("POST", f"{JOBS}/{first.json()['id']}/cancel")
    assert lab.ask("POST", JOBS, body).status_code == 200
    lab.close()


def test_a_large_file_is_checked_after_the_answer(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_files, "AT_ONCE", 10)
    good = lab.ask("POST", JOBS, {"model": MODEL, "training_file": lab.file(ROWS[:9])}).json()
    assert good["status"] == "validating_files" and len(good["sharpen"]["warnings"]) == 1
    assert lab.ask("POST", f"{JOBS}/{good['id']}/pause").json()["error"]["code"] == "job_not_pausable"
    asyncio.run(validate(lab.server, good["id"]))
    found = lab.ask("GET", f"{JOBS}/{good['id']}").json()
    assert found["status"] == "queued" and found["hyperparameters"]["n_epochs"] == 3
    assert "9 rows only" in found["sharpen"]["warnings"][1]
    assert found["sharpen"]["warnings"][1] in lab.ask("GET", f"{JOBS}/{good['id']}/events").text
    bad = lab.ask("POST", JOBS, {"model": MODEL, "training_file": lab.file([*ROWS, {"messages": "none"}])}).json()
    asyncio.run(validate(lab.server, bad["id"]))
    asyncio.run(validate(lab.server, bad["id"]))
    found = lab.ask("GET", f"{JOBS}/{bad['id']}").json()
    assert found["status"] == "failed" and found["finished_at"]
    assert (found["error"]["code"], found["error"]["param"]) == ("invalid_training_file", "training_file")
    assert "21" in found["error"]["message"]


def test_the_end_is_estimated_from_jobs_of_the_kind(lab: Lab) -> None:
    key = lab.new_key("estimates")
    body = {"model": "smollm2-135m-instruct", "training_file": lab.file(ROWS, project="estimates")}
    first = lab.ask("POST", JOBS, body, key=key).json()
    assert first["estimated_finish"] is None and "not known" in first["sharpen"]["estimate"]

    def finish(connection: Connection) -> None:
        move(connection, first["id"], "running")
        move(connection, first["id"], "succeeded", seconds=120.0)

    lab.server.db.change(finish)
    second = lab.ask("POST", JOBS, {**body, "hyperparameters": {"n_epochs": 6}}, key=key).json()
    assert 239 <= second["estimated_finish"] - second["created_at"] <= 242  # twice the epochs, so twice 120 s
    pace = {"stage": "sft", "step": 2, "steps": 10, "seconds": 20.0}
    lab.server.db.change(partial(move, job_id=second["id"], to="running", progress=pace))
    left = lab.ask("GET", f"{JOBS}/{second['id']}", key=key).json()["estimated_finish"] - time.time()
    assert 77 <= left <= 81  # 8 steps of 10 s
    ended = lab.ask("GET", f"{JOBS}/{first['id']}", key=key).json()
    assert ended["estimated_finish"] is None
