"""Models of the hub, from a server on this machine that answers as the hub does: downloads, and every way to fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from sharpen.cli.main import main
from sharpen.errors import ModelError
from sharpen.models import hub
from sharpen.models.bases import BASES
from sharpen.models.folder import pinned, resolve
from sharpen.models.hub import HubId
from tests.models.fake_hub import COMMIT, OLDER, TOKEN, Hub, serving
from tests.runs.lab import World
from tests.tiny import tiny_model

TINY = HubId("org/tiny", None)
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nothing listens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("hub") / "tiny", num_hidden_layers=1)


@pytest.fixture
def server(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(model)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    with serving(made) as address:
        _point_to(address, monkeypatch)
        yield made


def _point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def quiet(line: str) -> None:
    """For what is said on the way."""


def why(name: str) -> str:
    """The error of fetching a model."""
    with pytest.raises(ModelError) as caught:
        resolve(name, quiet)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", HubId("org/name", None)),
        ("org/na.me@v1.0", HubId("org/na.me", "v1.0")),
        ("org/name@refs/pr/3", HubId("org/name", "refs/pr/3")),
        ("qwen3-0.6b", HubId("Qwen/Qwen3-0.6B", None)),
        ("qwen3-0.6b@abc123", HubId("Qwen/Qwen3-0.6B", "abc123")),
        ("qwen3-0.6", None),
        ("a/b/c", None),
        ("/org/name", None),
    ],
)
def test_a_name_means_a_model_of_the_hub_or_none(name: str, expected: HubId | None) -> None:
    assert hub.parse(name) == expected


def test_a_download_says_its_size_and_licence_first_and_brings_what_loading_needs(server: Hub, model: Path) -> None:
    said: list[str] = []
    folder = resolve("org/tiny", said.append)
    files = server.files()
    size = sum(
        len(content) for name, content in files.items() if name not in ("pytorch_model.bin",) and "/" not in name
    )
    assert said == [f"Downloading org/tiny at commit {COMMIT[:12]}: {size / 1e3:.0f} kB, licence apache-2.0"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in model.iterdir()}
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    said.clear()
    assert resolve("org/tiny", said.append) == folder and not said


def test_a_revision_is_another_commit(server: Hub) -> None:
    assert resolve("org/tiny@v1", quiet).name == OLDER
    assert resolve("org/tiny", quiet).name == COMMIT
    assert pinned("org/tiny") == f"org/tiny@{COMMIT}" and pinned("org/tiny@v1") == f"org/tiny@{OLDER}"


def test_a_commit_that_is_here_is_found_without_asking_the_hub(server: Hub) -> None:
    folder = resolve("org/tiny", quiet)
    server.requests.clear()
    assert resolve(f"org/tiny@{COMMIT}", quiet) == folder == hub.here(TINY)
    assert server.requests == []


def test_a_branch_that_has_moved_is_fetched_anew(server: Hub) -> None:
    resolve("org/tiny", quiet)
    server.main = OLDER
    assert resolve("org/tiny", quiet).name == OLDER


def test_an_alias_is_fetched_from_its_place_on_the_hub(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    base = BASES["qwen3-0.6b"]
    monkeypatch.setitem(BASES, "tiny-one", type(base)("tiny-one", "org/tiny", 1, 1, base.shape))
    assert resolve("tiny-one", quiet).name == COMMIT
    assert pinned("tiny-one") == f"org/tiny@{COMMIT}"


def test_a_folder_goes_before_an_alias_of_the_hub(
    server: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qwen3-0.6b").symlink_to(model)
    assert resolve("qwen3-0.6b", quiet) == Path("qwen3-0.6b")
    assert pinned("qwen3-0.6b") == "qwen3-0.6b" and server.requests == []


def test_a_gated_model_says_where_its_licence_is_accepted_and_whether_a_token_was_seen(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = f"{constants.ENDPOINT}/org/gated"
    without = why("org/gated")
    assert "gated" in without and f"Accept it at {page}" in without and "no token was seen" in without
    assert "HF_TOKEN" in without and "hf auth login" in without
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused = why("org/gated")
    assert "the account of your token has no access" in refused and page in refused and TOKEN not in refused
    server.granted.add(TOKEN)
    assert resolve("org/gated", quiet).name == COMMIT


def test_a_private_model_is_had_with_a_token_from_the_file_of_a_login(server: Hub, tmp_path: Path) -> None:
    assert "no model of this name, or it is private" in why("org/private")
    (tmp_path / "token").write_text(TOKEN)
    assert resolve("org/private", quiet).name == COMMIT


@pytest.mark.parametrize(
    ("name", "token", "words"),
    [
        ("org/missing", "", ("no model of this name", "Check the spelling", "no token was seen")),
        ("org/missing", TOKEN, ("no model of this name", "a token was seen")),
        ("org/tiny@v7", "", ("no such revision", "'org/tiny@v7'", "/org/tiny/commits/main")),
        ("org/refused", TOKEN, ("the hub refused", "/settings/tokens", "a token was seen")),
        ("org/down", "", ("the hub answered 503", "Try again later")),
        ("org/a--b", "", ("not a name the hub could have", "org/name")),
    ],
)
def test_each_refusal_has_its_own_words(
    server: Hub, monkeypatch: pytest.MonkeyPatch, name: str, token: str, words: tuple[str, ...]
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    said = why(name)
    assert all(word in said for word in words), said
    assert TOKEN not in said


def test_without_network_what_is_here_is_used_and_what_is_not_is_named(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = resolve("org/tiny", quiet)
    address = constants.ENDPOINT
    _point_to(NOWHERE, monkeypatch)
    assert resolve("org/tiny", quiet) == folder
    said = why("org/gated")
    assert f"cannot be reached at {NOWHERE}" in said and address not in said and "HF_ENDPOINT" in said


def test_offline_only_the_cache_is_used_and_what_it_lacks_is_said(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve("org/tiny", quiet)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.requests.clear()
    assert resolve("org/tiny", quiet) == folder
    said = why("qwen3-0.6b")
    assert "the model is not here, and HF_HUB_OFFLINE is set" in said and "sharpen models pull Qwen/Qwen3-0.6B" in said
    (folder / "model.safetensors").unlink()
    assert hub.here(TINY) is None
    assert "1 of the model's files are not here (model.safetensors), and HF_HUB_OFFLINE is set" in why("org/tiny")
    assert server.requests == []


def test_too_little_disk_space_is_told_before_the_download(server: Hub, tmp_path: Path) -> None:
    server.size = 10**18
    said = why("org/tiny")
    assert "too little disk space" in said and "1000000000.0 GB are needed" in said and "HF_HOME" in said
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_download_that_breaks_off_goes_on_where_it_was(
    server: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    server.cut_after = 5000
    whole = (model / "model.safetensors").read_bytes()
    assert (resolve("org/tiny", quiet) / "model.safetensors").read_bytes() == whole
    assert server.ranges == ["bytes=5000-"]


def test_after_a_killed_download_only_what_is_missing_is_fetched(server: Hub, model: Path) -> None:
    server.cut_after, server.stalls = 5000, True
    environment = {"HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_CACHE": constants.HF_HUB_CACHE}
    command = [sys.executable, "-m", "sharpen.cli.main", "models", "pull", "org/tiny"]
    child = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert server.stalled.wait(60)
    others = len(list(model.iterdir())) - 1
    for _ in range(200):
        if len(list(Path(constants.HF_HUB_CACHE).rglob("snapshots/*/*"))) == others:
            break
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert hub.here(TINY) is None
    server.requests.clear()
    folder = resolve("org/tiny", quiet)
    assert (folder / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert [line for line in server.requests if line.startswith("GET /org")] == [
        f"GET /org/tiny/resolve/{COMMIT}/model.safetensors"
    ]


def test_a_run_notes_the_commit_it_started_from_and_stays_with_it(server: Hub, tmp_path: Path) -> None:
    from sharpen.stages.resolve import reopen
    from sharpen.stages.resolve import resolve as resolve_recipe

    world = World(tmp_path / "world")
    recipe = world.recipe(world.sft_stage(), model="org/tiny")
    run = tmp_path / "run"
    run.mkdir()
    resolve_recipe(recipe, run, tmp_path)
    assert yaml.safe_load((run / "recipe.yaml").read_text())["model"] == f"org/tiny@{COMMIT}"
    server.main = OLDER
    assert resolve(reopen(run)[0].recipe.model, quiet).name == COMMIT


def test_pull_says_what_it_brings_and_where_it_is(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "pull", "org/tiny@v1"]) == 0
    said = capsys.readouterr().out
    assert (
        "licence apache-2.0" in said
        and f"commit {OLDER[:12]}" in said
        and str(hub.here(HubId("org/tiny", "v1"))) in said
    )
    assert main(["models", "pull", "org/tiny@v1"]) == 0
    assert "Downloading" not in capsys.readouterr().out
    assert main(["models", "pull", "org/missing"]) == 2
