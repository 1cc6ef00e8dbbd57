"""The server's bench in short: what it counts, and nothing of what it times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import tables
from bench.server import creates, kills
from bench.server.process import Process
from bench.server.wire import percentile
from tests.tiny import tiny_model

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("tiny"), num_hidden_layers=1))


def test_jobs_of_many_clients_are_there_once(tmp_path: Path, model: str) -> None:
    found = creates.measure(Process(tmp_path / "server", model), clients=8, each=8)
    assert (found["jobs"], found["retried"]) == (64, 3)
    assert (found["lost"], found["duplicated"]) == (0, 0)


def test_what_was_acknowledged_is_there_after_kill_9(tmp_path: Path, model: str) -> None:
    server = Process(tmp_path / "server", model)
    try:
        found = kills.measure(server, kills=3, writers=8)
    finally:
        server.remove()
    assert found["acknowledged"]["jobs"] > 8 and found["acknowledged"]["files"] and found["acknowledged"]["cancels"]
    assert (found["lost"], found["duplicated"]) == (0, 0)


def test_a_job_that_is_not_there_is_lost(tmp_path: Path, model: str) -> None:
    assert creates.verdict(Process(tmp_path / "server", model), {"1": "ftjob-nowhere"}) == (1, 0)


def test_percentiles_by_hand() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0


@pytest.mark.long
def test_the_whole_bench_in_short(tmp_path: Path, model: str) -> None:
    out = tmp_path / "server.json"
    command = [sys.executable, "-m", "bench.server", "--short", "--model", model, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(out.read_text())
    found = document["ours"]
    assert found.keys() == {"creates, sqlite", "slow", "kills", "chat"}
    assert found["slow"]["failed"] == 0 and found["slow"]["connections"] == 30
    assert found["chat"]["tokens"] > 0
    assert "8 writers" in tables.server(document) and "| 0 | 0 |" in done.stdout
