"""`sharpen keys`: made, listed and revoked; the secret is shown once and never again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sqlalchemy import select

from sharpen.cli.main import main
from sharpen.server.database import Database
from sharpen.server.keys import Keys
from sharpen.server.tables import audit


@pytest.fixture
def folder(tmp_path: Path) -> list[str]:
    return ["--data-dir", str(tmp_path / "data")]


def listed(folder: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["keys", "list", "--json", *folder]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


async def opens(database: Database, secret: str) -> set[str]:
    """The scopes that a secret has."""
    found = await Keys(database, lambda token: None).caller(secret)
    return set(found.scopes) if found else set()


def test_a_key_lives_from_create_to_revoke(
    folder: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = ["keys", "create", "--project", "lab", "--name", "Ann", "--scope", "read,chat", "--days", "2"]
    assert main([*made, *folder]) == 0
    told = capsys.readouterr()
    secret = told.out.strip()
    assert secret.startswith("sk-") and secret not in told.err
    (row,) = listed(folder, capsys)
    assert (row["project"], row["name"], row["scopes"]) == ("lab", "Ann", ["read", "chat"])
    database = Database(f"sqlite:///{tmp_path / 'data/server.db'}")
    assert asyncio.run(opens(database, secret)) == {"read", "chat"}
    assert main(["keys", "revoke", str(row["id"]), *folder]) == 0
    assert asyncio.run(opens(database, secret)) == set()
    (row,) = listed(folder, capsys)
    assert row["state"] == "revoked"
    rows = database.look(lambda connection: connection.execute(select(audit)).all())
    database.close()
    assert [(row.action, row.project, row.key_id) for row in rows] == [
        ("key.create", "lab", "operator"),
        ("key.revoke", "lab", "operator"),
    ]
    for path in (tmp_path / "data").rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()
    main(["keys", "list", *folder])
    assert secret not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "--scope", "read,everything"], "everything"),
        (["create", "--project", "a b"], "--project"),
        (["create", "--days", "0"], "--days"),
        (["create", "--name", "x" * 200], "--name"),
        (["revoke", "key-none"], "no such key"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], said: str, folder: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["keys", *arguments, *folder])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code != 0 and said in capsys.readouterr().err
    assert not listed(folder, capsys)
