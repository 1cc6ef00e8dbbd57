"""What the scripts share: where their data is, the model they ask for, and a look at a job until it has ended."""

from __future__ import annotations

import os
import time
from pathlib import Path

from openai import OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

HERE = Path(__file__).parent
MODEL = os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")
ENDS = ("succeeded", "failed", "cancelled")


def upload(client: OpenAI, name: str) -> FileObject:
    """A file of this folder, for fine-tuning."""
    with (HERE / name).open("rb") as file:
        return client.files.create(file=file, purpose="fine-tune")


def follow(client: OpenAI, id: str, *until: str) -> FineTuningJob:
    """Poll a job until it has ended, has paused, or is in one of the states `until`; print its events once each."""
    told: set[str] = set()
    while True:
        job = client.fine_tuning.jobs.retrieve(id)
        news = [event for event in client.fine_tuning.jobs.list_events(id, limit=100) if event.id not in told]
        for event in reversed(news):
            told.add(event.id)
            print(f"  {event.level:5} {event.message}")
        if job.status in (*ENDS, "paused", *until):
            return job
        time.sleep(1)
