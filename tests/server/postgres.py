"""A PostgreSQL of the tests' own: a cluster in a folder, on a socket, as another user where we are root."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psycopg

NAME = "sharpen"
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=60")
"""The tests' databases need not outlive the machine."""


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


class Cluster:
    """Runs between `with` and its end."""

    def __init__(self, programs: Path, settings: Sequence[str] = FAST) -> None:
        self._programs = programs
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path must be short
        self._count = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        data = self._folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self._folder, _servant())
        self._run("initdb", "-D", str(data), "-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        options = [
            part
            for setting in (*self._settings, "listen_addresses=", "logging_collector=off")
            for part in ("-c", setting)
        ]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [*self._as(), str(self._programs / "postgres"), "-D", str(data), "-k", str(self._folder), *options],
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._run("pg_isready", "-h", str(self._folder), "-t", "0", tries=400)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(3)  # SIGQUIT: at once
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The address of a new database, which is dropped at the end."""
        name = f"test{next(self._count)}"
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            yield f"postgresql+psycopg://{NAME}@/{name}?host={self._folder}"
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _address(self, database: str) -> str:
        return f"host={self._folder} user={NAME} dbname={database}"

    def _as(self) -> list[str]:
        """PostgreSQL does not run as root."""
        return ["setpriv", f"--reuid={_servant()}", "--clear-groups", "--"] if os.geteuid() == 0 else []

    def _run(self, program: str, *arguments: str, tries: int = 1) -> None:
        command = [*self._as(), str(self._programs / program), *arguments]
        for _ in range(tries):
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            if tries > 1:
                subprocess.run(["sleep", "0.05"], check=True)
        raise AssertionError(f"{program}: {done.stdout}{done.stderr}")


def _servant() -> str:
    """A user who is not root."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("there is no user but root")
