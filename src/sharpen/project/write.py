"""Files put in place whole: all of them, or none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sharpen.errors import ConfigError, RunError


def check(folder: Path, names: Sequence[str], *, force: bool, source: Path | None = None) -> None:
    """Raise ConfigError where files are there already that would be written over."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError("the project's folder is a file", value=str(folder), remedy="Name another folder")
    there = [name for name in names if (folder / name).exists()]
    if source is not None and any((folder / name).resolve() == source.resolve() for name in names):
        raise ConfigError(
            "the project would write over the file that its rows come from",
            value=str(source),
            remedy="Name another folder, or move the file",
        )
    if there and not force:
        raise ConfigError(
            f"files are there already: {', '.join(there)}",
            value=str(folder),
            remedy="Name another folder, or add --force to write over them",
        )


def write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files into the folder, which is made where it is missing. Raises RunError; then nothing has changed."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    aside: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".sharpen-init-", dir=folder))
        for name, text in texts.items():
            path = aside / "new" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        _exchange(folder, aside, list(texts))
    except BaseException as error:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(
                f"cannot write the project, and nothing was changed: {error.strerror or error}",
                value=str(folder),
                remedy="Name a folder that can be written, on a disk with room",
            ) from error
        raise
    finally:
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)


def _exchange(folder: Path, aside: Path, names: list[str]) -> None:
    """Move the new files in; where one cannot be, all are moved back."""
    moved: list[tuple[Path, Path]] = []
    made: list[Path] = []
    try:
        for name in names:
            target, old = folder / name, aside / "old" / name
            if not target.parent.exists():
                target.parent.mkdir()
                made.append(target.parent)
            if target.exists():
                old.parent.mkdir(parents=True, exist_ok=True)
                target.replace(old)
                moved.append((old, target))
            (aside / "new" / name).replace(target)
            moved.append((target, aside / "new" / name))
    except BaseException:
        for now, before in reversed(moved):
            now.replace(before)
        for path in made:
            path.rmdir()
        raise
