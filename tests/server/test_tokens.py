"""Signed tokens: what they open, and that nothing else does."""

from __future__ import annotations

import asyncio
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sharpen.errors import RunError
from sharpen.server.app import create
from sharpen.server.grading import tokens
from sharpen.server.settings import Settings

KEY = bytes(range(32))


def issued(key: bytes = KEY, seconds: float = 60.0) -> str:
    return tokens.issue(key, "ftjob-1", "a", ["judge:gpt-4o"], time.time() + seconds)


def test_a_token_says_for_whom_it_is_and_opens_chat_with_its_models_alone() -> None:
    caller = tokens.read(KEY, issued())
    assert caller is not None
    assert (caller.project, caller.scopes, caller.models) == ("a", frozenset({"chat"}), frozenset({"judge:gpt-4o"}))


def test_an_expired_token_is_nobodys() -> None:
    assert tokens.read(KEY, issued(seconds=-1)) is None


def test_a_token_of_another_secret_is_nobodys() -> None:
    assert tokens.read(KEY, issued(bytes(32))) is None


def test_no_change_of_a_single_letter_is_taken() -> None:
    token = issued()
    for place in range(len(token)):
        for letter in "Ab-_9.=":
            changed = f"{token[:place]}{letter}{token[place + 1 :]}"
            assert changed == token or tokens.read(KEY, changed) is None, changed


def test_no_beginning_of_a_token_and_nothing_longer_is_taken() -> None:
    token = issued()
    assert all(tokens.read(KEY, token[:length]) is None for length in range(len(token)))
    assert all(tokens.read(KEY, token + more) is None for more in ("A", "=", ".", "\n", "A" * 10_000))


@pytest.mark.parametrize("token", ["", "skj-", "skj-.", "sk-abc", "skj-é.é", "skj-bnVsbA.bnVsbA", "skj-\udc80.x"])
def test_what_is_no_token_is_nobodys(token: str) -> None:
    assert tokens.read(KEY, token) is None


def test_the_secret_is_made_once_for_all_who_ask_at_the_same_time(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(lambda _: tokens.secret(tmp_path), range(64)))
    assert len(found) == 1
    assert tokens.secret(tmp_path) in found
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_secret_that_was_cut_off_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(RunError, match="backup"):
        tokens.secret(tmp_path)


def test_a_token_opens_no_other_route_and_no_other_model(tmp_path: Path) -> None:
    app = create(Settings.model_validate({"data_dir": tmp_path, "judges": {"gpt-4o": "no-such-model"}}))
    key = app.state.server.secret
    token = tokens.issue(key, "ftjob-1", "a", ["judge:gpt-4o"], time.time() + 60)
    asked: list[tuple[str, str]] = []
    for path, operations in app.openapi()["paths"].items():
        asked += [(method.upper(), path.replace("{", "").replace("}", "")) for method in operations]
    chat = "/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "x"}]}

    async def all_of_them() -> dict[Any, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:

            async def status(method: str, path: str, secret: str, json: Any = None) -> int:
                headers = {"authorization": f"Bearer {secret}"}
                return (await client.request(method, path, headers=headers, json=json)).status_code

            found: dict[Any, int] = {}
            for method, path in asked:
                if path.startswith("/v1") and path != chat and "chat" not in path:
                    found[method, path] = await status(method, path, token, {} if method == "POST" else None)
            for model in ("gpt-4o", "judge:other", "smollm2-135m-instruct", "ft:x"):
                found[model] = await status("POST", chat, token, {**body, "model": model})
            for name, secret in {
                "forged": tokens.issue(bytes(32), "j", "a", ["judge:gpt-4o"], time.time() + 60),
                "expired": tokens.issue(key, "j", "a", ["judge:gpt-4o"], time.time() - 1),
                "cut": token[:-4],
            }.items():
                found[name] = await status("POST", chat, secret, {**body, "model": "judge:gpt-4o"})
            return found

    found = asyncio.run(all_of_them())
    app.state.server.db.close()
    models = {name: found.pop(name) for name in ("gpt-4o", "judge:other", "smollm2-135m-instruct", "ft:x")}
    secrets = {name: found.pop(name) for name in ("forged", "expired", "cut")}
    assert len(found) > 15
    assert set(models.values()) == {404}
    assert set(secrets.values()) == {401}
    assert {place: status for place, status in found.items() if status not in (401, 403)} == {}
