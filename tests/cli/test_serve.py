"""`sharpen serve` from outside: it starts, says how it is used, refuses what is unsafe, and ends when it is told to."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from sharpen.cli.main import main
from sharpen.server.database import Database
from sharpen.server.tables import audit, jobs
from tests.server.test_supervised_run import a_run

COMMAND = [sys.executable, "-m", "sharpen.cli.main", "serve"]


def started(folder: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server that answers, and its address."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--data-dir", str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert process.stdout
    first = process.stdout.readline()
    found = re.search(r"http://[^/]+", first)
    assert found, first
    return process, found[0]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said where it does not start."""
    assert main(["serve", *arguments]) != 0
    return capsys.readouterr().err


def test_it_serves_alone_and_ends_with_a_signal(tmp_path: Path) -> None:
    process, address = started(tmp_path / "data")
    try:
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert httpx.get(f"{address}/v1/files").status_code == 401
        second = subprocess.run(
            [*COMMAND, "--port", "0", "--data-dir", str(tmp_path / "data")], capture_output=True, text=True
        )
        assert second.returncode == 2 and "another server" in second.stderr and str(process.pid) in second.stderr
        modules = Path(f"/proc/{process.pid}/maps")
        assert not modules.exists() or "libtorch" not in modules.read_text()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.stdout
        rest = process.stdout.read()
    assert process.wait(30) == 0
    assert "sharpen keys create" in rest and "base_url=" in rest


def test_a_request_in_work_is_answered_before_the_end(tmp_path: Path) -> None:
    process, address = started(tmp_path / "data", "--no-auth")
    host, port = address.removeprefix("http://").split(":")
    body = b'{"grader": 1}'
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/fine_tuning/alpha/graders/run HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:5])
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        client.sendall(body[5:])
        assert client.recv(1000).startswith(b"HTTP/1.1 400")
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(tmp_path / "data")]
    assert "only this machine" in refused(capsys, "--no-auth", "--host", "0.0.0.0", *folder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "--port" in refused(capsys, "--port", str(taken.getsockname()[1]), *folder)
    (tmp_path / "file").write_text("")
    assert "--data-dir" in refused(capsys, "--data-dir", str(tmp_path / "file"))
    gone = "postgresql+psycopg://ann:geheim@127.0.0.1:1/none"
    said = refused(capsys, "--port", "0", "--database", gone, *folder)
    assert "--database" in said and "geheim" not in said


def test_check_says_ok_or_how_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(tmp_path / "data"), "--port", "0"]
    assert main(["serve", "--check", *folder]) == 0
    said = capsys.readouterr().out
    assert "OK" in said and all(word in said for word in ("database", "disk", "sandbox", "clock", "models", "memory"))
    config = tmp_path / "server.yaml"
    config.write_text(
        "models: {gpt-4.1-mini: no/such-model}\njudges: {o: {base_url: 'http://x/v1', model: m, api_key_env: NO_KEY}}\n"
    )
    assert main(["serve", "--check", "--config", str(config), *folder]) == 1
    said = capsys.readouterr().out
    assert "sharpen models pull no/such-model" in said and "export NO_KEY" in said and "2 of these" in said


def test_a_run_is_imported_as_a_job_of_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path, "finished")
    assert main(["serve", "--import", str(run), "--project", "lab", "--data-dir", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    database = Database(f"sqlite:///{tmp_path / 'data/server.db'}")
    job = database.look(lambda connection: connection.execute(select(jobs)).one())
    noted = database.look(lambda connection: connection.execute(select(audit)).one())
    database.close()
    assert job.id in said and (job.project, job.status) == ("lab", "succeeded")
    assert (noted.action, noted.object, noted.key_id) == ("job.import", job.id, "operator")


def test_a_backup_is_written_and_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, saved = (str(tmp_path / name) for name in ("first", "second", "saved.tar"))
    assert main(["keys", "create", "--name", "Ann", "--data-dir", first]) == 0
    assert main(["serve", "--backup", saved, "--data-dir", first]) == 0
    assert main(["serve", "--restore", saved, "--data-dir", second]) == 0
    capsys.readouterr()
    assert main(["keys", "list", "--data-dir", second]) == 0
    assert "Ann" in capsys.readouterr().out
