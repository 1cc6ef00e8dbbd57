"""The options that `sharpen serve` and `sharpen keys` share: where the server's configuration and data are."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.errors import ConfigError, RunError

if TYPE_CHECKING:
    from sharpen.server.database import Database
    from sharpen.server.settings import Settings


def arguments(parser: ArgumentParser) -> None:
    """Which server is meant."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="a YAML file with the server's settings")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="files, runs, database (default: sharpen-data)")
    parser.add_argument(
        "--database", metavar="URL", help="postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE (default: in DIR)"
    )


def settings(options: Namespace) -> Settings:
    """What the file and the options say. Raises ConfigError, also where the extra `server` is not installed."""
    try:
        import alembic
        import fastapi
        import httptools
        import psycopg
        import python_multipart
        import sqlalchemy
        import uvicorn
    except ImportError as error:
        raise ConfigError(
            f"the server needs packages that are not here: {error}",
            remedy="Install them: pip install 'sharpen[server]'",
        ) from error
    from sharpen.server.settings import load

    assert alembic and fastapi and httptools and python_multipart and psycopg and sqlalchemy and uvicorn
    names = ("host", "port", "data_dir", "database")
    given: dict[str, Any] = {name: getattr(options, name, None) for name in names}
    given["auth"] = False if getattr(options, "no_auth", False) else None
    return load(options.config, given)


def database(found: Settings) -> Database:
    """The server's database, opened beside it; close it. Raises RunError."""
    from sharpen.server.database import Database

    made(found.data_dir)
    return Database(found.database_url)


def made(folder: Path) -> None:
    """Make the data folder, if it is not there. Raises RunError where it cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        why = "" if os.access(folder, os.W_OK | os.X_OK) else "it cannot be written"
    except OSError as error:
        why = error.strerror or str(error)
    if why:
        remedy = "Make it writable, or name another with --data-dir"
        raise RunError(f"the data folder cannot be used: {why}", value=str(folder), remedy=remedy)
