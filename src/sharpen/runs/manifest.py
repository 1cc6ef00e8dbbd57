"""Folders that are whole or absent: written aside, fsynced, listed with SHA-256, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharpen.errors import CheckpointError

NAME = "manifest.json"
OWN = "manifest_sha256"
"""The manifest's digest of its other entries: a flipped bit in a step or an offset is damage too."""


@contextmanager
def publish(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it becomes `folder`, with a manifest carrying `facts`.

    Whatever stood at `folder` stays until the new one is complete on disk. On failure nothing changes.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.writing")
    old = folder.with_name(f".{folder.name}.old")
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        files = {path.relative_to(aside).as_posix(): digest(path) for path in _files(aside)}
        content = {"schema_version": 1, "files": files, **facts}
        (aside / NAME).write_text(json.dumps({**content, OWN: _own_digest(content)}, indent=1))
        for path in aside.rglob("*"):
            _sync(path)
        _sync(aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    _sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose files match it. Raises CheckpointError naming what does not."""
    try:
        manifest: dict[str, Any] = json.loads((folder / NAME).read_text())
        files = manifest["files"]
        own = manifest.pop(OWN, None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("no readable manifest", value=str(folder / NAME)) from error
    if own != _own_digest(manifest):
        raise CheckpointError("the manifest does not match its own digest", value=str(folder / NAME))
    for name, wanted in files.items():
        try:
            found = digest(folder / name)
        except OSError as error:
            raise CheckpointError(f"{name} of the manifest cannot be read", value=str(folder)) from error
        if found != wanted:
            raise CheckpointError(f"{name} does not match its manifest", value=str(folder))
    return manifest


def noted(folder: Path) -> dict[str, str]:
    """The digests that a folder's manifest has of its files, believed. Raises CheckpointError where there are none."""
    try:
        return dict(json.loads((folder / NAME).read_text())["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("no readable manifest", value=str(folder / NAME)) from error


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _own_digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
