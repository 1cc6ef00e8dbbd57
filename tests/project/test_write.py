"""Files are put in place whole, all of them or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sharpen.errors import ConfigError, RunError
from sharpen.project import write

TEXTS = {"recipe.yaml": "new\n", "data/a.jsonl": "ä\n", "data/b.jsonl": "b\n"}


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_project_is_written_where_there_is_none_and_beside_other_files(tmp_path: Path) -> None:
    for folder in (tmp_path / "new" / "deep", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        (tmp_path / "there" / "mine.csv").write_text("mine")
        write.write(folder, TEXTS)
        assert tree(folder).items() >= TEXTS.items()
    assert tree(tmp_path / "there") == {**TEXTS, "mine.csv": "mine"}


def test_files_that_are_there_are_named_and_kept_unless_forced(tmp_path: Path) -> None:
    write.write(tmp_path, {"recipe.yaml": "old\n", "data/b.jsonl": "old\n"})
    with pytest.raises(ConfigError, match=r"files are there already: recipe.yaml, data/b.jsonl .*--force"):
        write.check(tmp_path, list(TEXTS), force=False)
    write.check(tmp_path, list(TEXTS), force=True)
    write.write(tmp_path, TEXTS)
    assert tree(tmp_path) == TEXTS


def test_the_rows_themselves_are_never_written_over(tmp_path: Path) -> None:
    write.write(tmp_path, TEXTS)
    with pytest.raises(ConfigError, match="would write over the file that its rows come from"):
        write.check(tmp_path, list(TEXTS), force=True, source=tmp_path / "data/../data/a.jsonl")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(ConfigError, match="the project's folder is a file"):
        write.check(tmp_path / "x", list(TEXTS), force=False)
    with pytest.raises(RunError, match=r"nothing was changed: (Not a directory|File exists)"):
        write.write(tmp_path / "x" / "y", TEXTS)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_full_disk_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, failing: int
) -> None:
    folder = tmp_path / "project"
    if there:
        write.write(folder, {"recipe.yaml": "old\n", "mine.csv": "mine"})
    before = tree(tmp_path)
    written, whole = [], Path.write_text

    def full(self: Path, *given: object, **named: object) -> int:
        written.append(self)
        if len(written) > failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="nothing was changed: No space left on device"):
        write.write(folder, TEXTS)
    assert tree(tmp_path) == before and folder.exists() == there


@pytest.mark.parametrize("stops", [OSError(errno.EACCES, "Permission denied"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing", [0, 1, 2, 3])
def test_a_move_that_fails_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops: BaseException, failing: int
) -> None:
    write.write(tmp_path, {"recipe.yaml": "old\n", "mine.csv": "mine"})
    before = tree(tmp_path)
    moves, really = [], Path.replace

    def replace(self: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) == failing + 1:
            raise stops
        return really(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(RunError if isinstance(stops, OSError) else KeyboardInterrupt):
        write.write(tmp_path, TEXTS)
    assert tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.csv", "recipe.yaml"]
