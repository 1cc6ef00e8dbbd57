"""What is damaged on disk is noticed, passed over, and made anew with the same bits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import CheckpointError, Interrupted
from sharpen.runs.manifest import verify
from sharpen.runs.observer import Observer
from sharpen.stages import pipeline, stopping
from tests.runs.lab import World, bits, differences, events

pytestmark = pytest.mark.usefixtures("here")


class Stop(Observer):
    """Asks the run to stop after a step, as a signal would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
        self.at = (stage, step)
        self.flags: list[stopping.StopFlag] = []
        original = stopping.StopFlag.__init__

        def init(flag: stopping.StopFlag) -> None:
            original(flag)
            self.flags.append(flag)

        monkeypatch.setattr(stopping.StopFlag, "__init__", init)

    def metrics(self, line: Mapping[str, Any]) -> None:
        if (line["stage"], line["step"]) == self.at:
            self.flags[-1].set("the test")


def stopped(world: World, run: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> Path:
    """A run that ended after a step; returns the folder of the stage's checkpoints."""
    with pytest.raises(Interrupted):
        pipeline.run(world.whole(), run, base=world.folder, observer=Stop(monkeypatch, stage, step))
    return run / "stages" / {"sft": "01-sft", "rft": "02-rft"}[stage] / "checkpoints"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit of the weights": (flip, "model.safetensors"),
    "a flipped bit of the optimiser": (flip, "trainer.safetensors"),
    "a flipped bit of the counters": (flip, "state.json"),
    "truncated weights": (cut, "model.safetensors"),
    "a truncated manifest": (cut, "manifest.json"),
    "a missing manifest": (Path.unlink, "manifest.json"),
    "a missing file": (Path.unlink, "trainer.safetensors"),
    "an empty file": (lambda path: path.write_bytes(b""), "trainer.safetensors"),
    "a manifest of another kind": (lambda path: path.write_text("[1, 2]"), "manifest.json"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_with_a_damaged_newest_checkpoint_the_one_before_serves(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any], damage: str
) -> None:
    run = tmp_path / "run"
    folder = stopped(world, run, monkeypatch, "rft", 3)
    harm, name = DAMAGE[damage]
    harm(folder / "step-00003" / name)
    pipeline.resume(run)
    (alert,) = events(run, "alert")
    assert alert["kind"] == "damaged_checkpoint" and "step-00003" in alert["message"]
    assert not differences(bits(run), undisturbed)


@pytest.mark.parametrize(("stage", "step"), [("sft", 5), ("rft", 4)])
def test_with_all_checkpoints_damaged_the_stage_begins_anew(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any], stage: str, step: int
) -> None:
    run = tmp_path / "run"
    folder = stopped(world, run, monkeypatch, stage, step)
    saved = sorted(folder.iterdir())
    assert len(saved) == 2
    for path in saved:
        flip(path / "model.safetensors")
    pipeline.resume(run)
    assert [alert["kind"] for alert in events(run, "alert")] == ["damaged_checkpoint"] * 2
    assert not differences(bits(run), undisturbed)


@pytest.mark.parametrize("stage", ["sft", "rft"])
def test_a_damaged_model_is_made_anew_with_all_that_came_of_it(
    world: World, tmp_path: Path, undisturbed: dict[str, Any], stage: str
) -> None:
    run = tmp_path / "run"
    pipeline.run(world.whole(), run, base=world.folder)
    flip(run / "models" / stage / "model.safetensors")
    pipeline.resume(run)
    (alert,) = events(run, "alert")
    assert (alert["kind"], alert["stage"]) == ("damaged_model", stage)
    again = events(run)[events(run).index(alert) :]
    assert [event["stage"] for event in again if event["event"] == "stage_finished"] == (
        ["sft", "rft"] if stage == "sft" else ["rft"]
    )
    assert not differences(bits(run), undisturbed)


def test_a_missing_model_in_the_middle_of_the_next_stage_is_made_anew(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    stopped(world, run, monkeypatch, "rft", 3)
    shutil.rmtree(run / "models" / "sft")
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


def test_a_last_line_of_metrics_that_a_crash_cut_short_does_no_harm(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    run = tmp_path / "run"
    stopped(world, run, monkeypatch, "rft", 3)
    for name in ("metrics.jsonl", "events.jsonl", "journal/rft.jsonl"):
        with (run / name).open("ab") as file:
            file.write(b'{"stage": "rft", "st\xc3')
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


def test_what_killed_processes_left_unfinished_is_cleared_away(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    folder = stopped(world, run, monkeypatch, "sft", 1)
    (folder / ".step-00003.writing").mkdir()
    pipeline.resume(run)
    assert sorted(path.name for path in folder.iterdir()) == ["step-00002", "step-00004"]


def test_a_checkpoint_is_what_its_manifest_says(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stopped(world, tmp_path / "run", monkeypatch, "sft", 3) / "step-00003"
    manifest = verify(folder)
    assert manifest["schema_version"] == 1 and manifest["step"] == 3
    assert manifest["metrics_offset"] == (tmp_path / "run" / "metrics.jsonl").stat().st_size
    assert set(manifest["files"]) | {"manifest.json"} == {path.name for path in folder.iterdir()}
    assert all(len(digest) == 64 for digest in manifest["files"].values())
    json.loads((folder / "state.json").read_text())
    flip(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        verify(folder)
