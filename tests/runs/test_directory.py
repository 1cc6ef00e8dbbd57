"""A run directory belongs to one run, and to one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import DataError, RunError
from sharpen.runs.store import RunDir
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, events, labelled, write_rows

pytestmark = pytest.mark.usefixtures("here")

SRC = Path(__file__).parents[2] / "src"
HOLD = """
import sys
from pathlib import Path
from sharpen.runs.store import RunDir
with RunDir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_that_another_process_holds_is_refused(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pipeline.run(world.recipe(world.sft_stage()), run, base=world.folder)
    before = (run / "events.jsonl").read_bytes()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    refused = rf"another process is at work.*process {holder.pid}"
    with pytest.raises(RunError, match=refused):
        pipeline.run(world.recipe(), run, base=world.folder)
    with pytest.raises(RunError, match=refused):
        pipeline.resume(run)
    assert (run / "events.jsonl").read_bytes() == before
    holder.kill()
    holder.communicate()
    assert pipeline.resume(run)["status"] == "finished"


def test_a_finished_run_is_not_overwritten(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    recipe = world.recipe(world.sft_stage())
    pipeline.run(recipe, run, base=world.folder)
    before = bits(run)
    with pytest.raises(RunError, match=r"already holds a run.*--resume"):
        pipeline.run(recipe, run, base=world.folder)
    assert bits(run) == before
    assert pipeline.resume(run)["status"] == "finished"
    assert bits(run) == before


def test_changed_data_is_refused_on_resume_by_name(world: World, tmp_path: Path) -> None:
    run, path = tmp_path / "run", tmp_path / "rows.jsonl"
    write_rows(path, labelled("count", 8))
    pipeline.run(world.recipe(world.sft_stage(data={"path": str(path)})), run, base=world.folder)
    write_rows(path, labelled("count", 9))
    with pytest.raises(RunError, match=r"data changed since the run began.*stages\.sft\.data"):
        pipeline.resume(run)
    path.unlink()
    with pytest.raises(DataError, match="cannot read the file"):
        pipeline.resume(run)
    write_rows(path, labelled("count", 8))
    pipeline.resume(run)


def test_other_versions_than_at_the_start_raise_an_alert(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    pipeline.run(world.recipe(), run, base=world.folder)
    recipe = run / "recipe.yaml"
    text = recipe.read_text()
    assert "\n    numpy: " in text
    recipe.write_text(text.replace("\n    numpy: ", "\n    numpy: 0."))
    pipeline.resume(run)
    (alert,) = events(run, "alert")
    assert alert["kind"] == "versions_changed" and "numpy 0." in alert["message"]


def test_what_is_no_run_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run to resume"):
        pipeline.resume(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "recipe.yaml").write_text(f"model: {world.model}\n")
    with pytest.raises(RunError, match="no run's"):
        pipeline.resume(tmp_path)


def test_a_place_that_cannot_be_a_directory_is_refused(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="cannot be written"):
            pipeline.run(world.recipe(), place, base=world.folder)


def test_relative_paths_of_the_recipe_hold_from_anywhere(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = world.recipe(world.sft_stage(data={"path": "sft.jsonl"}), model="model")
    pipeline.run(recipe, Path("run"), base=world.folder)
    monkeypatch.chdir(world.folder)
    assert pipeline.resume(tmp_path / "run")["status"] == "finished"


def test_inline_rows_of_the_same_name_stay_apart(world: World, tmp_path: Path) -> None:
    def rows(word: str) -> dict[str, Any]:
        return {"type": "inline", "rows": [{"prompt": f"{word} {number}"} for number in range(3)]}

    recipe = world.recipe(
        world.rft_stage(name="a", data=rows("one"), validation=rows("two"), steps=1),
        world.rft_stage(name="a-validation", data=rows("three"), steps=1),
        evals=[
            world.eval_config(name="a", data=rows("four")),
            world.eval_config(name="a-validation", data=rows("five")),
        ],
    )
    pipeline.run(recipe, tmp_path / "run", base=world.folder)
    kept = sorted(path.read_text()[12:16] for path in (tmp_path / "run" / "data").rglob("*.jsonl"))
    assert kept == sorted(["one ", "two ", "thre", "four", "five"])


def test_the_lock_is_given_back(tmp_path: Path) -> None:
    for _ in range(2):
        with RunDir(tmp_path / "run"):
            pass
