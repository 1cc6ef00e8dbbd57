"""What else a client does: pause, resume, cancel, lists in pages, retries, permissions, deletion.

With OPENAI_OTHER_KEY, a key of another project whose id is OPENAI_OTHER_PROJECT, permissions are tried from there.
"""

from __future__ import annotations

import os

from common import MODEL, follow, upload
from openai import BadRequestError, NotFoundError, OpenAI


def pausing(client: OpenAI, file: str) -> None:
    """A job too long to wait for is paused, resumed and cancelled."""
    jobs = client.fine_tuning.jobs
    job = jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 50, "batch_size": 1})
    try:
        jobs.resume(job.id)
    except BadRequestError as error:
        print(error.code, "-", error.message)
    else:
        raise AssertionError("a job that is not paused cannot be resumed")
    follow(client, job.id, "running")
    assert jobs.pause(job.id).status in ("paused", "running")
    assert follow(client, job.id, "paused").status == "paused"
    assert jobs.resume(job.id).status in ("queued", "running")
    assert follow(client, job.id, "running").status == "running"
    jobs.cancel(job.id)
    ended = follow(client, job.id)
    assert ended.status == "cancelled" and ended.finished_at
    try:
        jobs.cancel(job.id)
    except BadRequestError as error:
        print(error.code, "-", error.message)
    else:
        raise AssertionError("a job that has ended cannot be cancelled")


def pages(client: OpenAI, file: str) -> None:
    """Lists go on by themselves; a request that is sent again makes no second job."""
    jobs = client.fine_tuning.jobs
    key = os.urandom(8).hex()
    made = [
        jobs.create(
            model=MODEL,
            training_file=file,
            metadata={"batch": key, "number": str(number)},
            extra_headers={"Idempotency-Key": f"{key}-{number // 2}"} if number % 2 else None,
        ).id
        for number in range(5)
    ]
    again = jobs.create(
        model=MODEL,
        training_file=file,
        metadata={"batch": key, "number": "1"},
        extra_headers={"Idempotency-Key": f"{key}-0"},
    )
    assert again.id == made[1], "the same key and body: the same job"
    listed = [job.id for job in jobs.list(limit=2, metadata={"batch": key})]
    assert listed == made[::-1], "the newest first, over three pages"
    for id in made:
        if jobs.retrieve(id).status != "succeeded":
            jobs.cancel(id)
    events = [event.message for event in jobs.list_events(made[-1], limit=1)]
    assert len(events) > 2 and "created" in events[-1].lower(), events


def sharing(client: OpenAI, file: str) -> None:
    """A tuned model is lent to another project, taken back, and deleted."""
    job = client.fine_tuning.jobs.create(model=MODEL, training_file=file, hyperparameters={"n_epochs": 1})
    job = follow(client, job.id)
    assert job.fine_tuned_model
    permissions = client.fine_tuning.checkpoints.permissions
    project = os.environ.get("OPENAI_OTHER_PROJECT", "another")
    (given,) = permissions.create(job.fine_tuned_model, project_ids=[project]).data
    assert given.project_id == project
    if secret := os.environ.get("OPENAI_OTHER_KEY"):
        other = client.with_options(api_key=secret)
        assert other.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
        try:
            other.fine_tuning.jobs.retrieve(job.id)
        except NotFoundError as error:
            print(error.code, "-", error.message)
        else:
            raise AssertionError("another project's job is not there")
    assert permissions.delete(given.id, fine_tuned_model_checkpoint=job.fine_tuned_model).deleted
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert client.models.delete(job.fine_tuned_model).deleted
    assert job.fine_tuned_model not in [model.id for model in client.models.list()]


def main() -> None:
    """Ends with an error where anything is not as OpenAI's API has it."""
    client = OpenAI()
    file = upload(client, "tickets.jsonl")
    pausing(client, file.id)
    pages(client, file.id)
    sharing(client, file.id)
    assert client.files.delete(file.id).deleted
    try:
        client.files.retrieve(file.id)
    except NotFoundError as error:
        print(error.code, "-", error.message)
    else:
        raise AssertionError("a deleted file is gone")


if __name__ == "__main__":
    main()
