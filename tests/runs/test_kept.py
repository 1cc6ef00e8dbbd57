"""Which checkpoints stay on disk while a stage trains: `keep_last`, `keep_every`, and none before its successor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.errors import Interrupted
from sharpen.runs import manifest
from sharpen.runs.retention import checkpoints, kept
from sharpen.stages import pipeline
from sharpen.train import checkpoint
from tests.runs.lab import World, bits, differences, events
from tests.runs.test_damaged import Stop, flip

pytestmark = pytest.mark.usefixtures("here")


def saved(run: Path, stage: str = "01-sft") -> list[int]:
    return list(checkpoints(run / "stages" / stage / "checkpoints"))


@pytest.mark.parametrize(
    ("kind", "changes", "steps"),
    [
        ("sft", {}, [6, 8]),  # as ever: the two newest
        ("sft", {"keep_last": 1}, [8]),
        ("sft", {"keep_every": 4}, [4, 6, 8]),
        ("sft", {"keep_every": 3}, [3, 6, 8]),  # one that is no multiple of save_every is written all the same
        ("rft", {"keep_last": 3}, [4, 6, 8]),
        ("rft", {"keep_last": 1, "keep_every": 2}, [2, 4, 6, 8]),
    ],
)
def test_the_newest_and_every_so_many_stay(
    world: World, tmp_path: Path, kind: str, changes: dict[str, int], steps: list[int]
) -> None:
    stage = world.sft_stage(epochs=8 / 3, **changes) if kind == "sft" else world.rft_stage(steps=8, **changes)
    pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    assert saved(tmp_path / "run", f"01-{kind}") == steps


def test_what_stays_changes_no_bit_of_the_result(world: World, tmp_path: Path) -> None:
    for name, changes in (("one", {}), ("two", {"keep_last": 1, "keep_every": 3})):
        pipeline.run(world.recipe(world.sft_stage(**changes)), tmp_path / name, base=world.folder)
    assert not differences(bits(tmp_path / "one"), bits(tmp_path / "two"))


def test_what_stays_may_change_when_a_run_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        recipe = world.recipe(world.sft_stage(epochs=3))
        pipeline.run(recipe, run, base=world.folder, observer=Stop(monkeypatch, "sft", 5))
    assert saved(run) == [4, 5]
    pipeline.resume(run, ["stages.sft.keep_last=3", "stages.sft.keep_every=4"])
    assert saved(run) == [4, 6, 8, 9]
    assert yaml.safe_load((run / "recipe.yaml").read_text())["stages"][0]["keep_last"] == 3


@contextmanager
def _damaging(folder: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    with manifest.publish(folder, facts) as aside:
        yield aside
    if facts["step"] in (4, 6):
        flip(folder / "trainer.safetensors")


def test_a_checkpoint_that_is_damaged_as_it_is_written_makes_no_other_superfluous(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    run, stages = tmp_path / "run", world.whole()
    kept_one = stages.model_copy(
        update={"stages": tuple(stage.model_copy(update={"keep_last": 1}) for stage in stages.stages)}
    )
    monkeypatch.setattr(checkpoint, "publish", _damaging)
    with pytest.raises(Interrupted):
        pipeline.run(kept_one, run, base=world.folder, observer=Stop(monkeypatch, "sft", 5))
    (alert,) = events(run, "alert")
    assert alert["kind"] == "damaged_checkpoint" and "step-00004" in alert["message"]
    assert "just after it was written" in alert["message"]
    assert [event["step"] for event in events(run, "checkpoint")] == [2, 5]
    assert saved(run) == [5]  # sound: now the damaged one and those before it may go

    flip(run / "stages/01-sft/checkpoints/step-00005/state.json")
    monkeypatch.undo()
    pipeline.resume(run)
    assert not differences(bits(run), undisturbed)


def test_while_the_newest_is_damaged_the_one_before_serves(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = tmp_path / "run", world.recipe(world.sft_stage(keep_last=1))
    monkeypatch.setattr(checkpoint, "publish", _damaging)
    with pytest.raises(Interrupted):
        pipeline.run(recipe, run, base=world.folder, observer=Stop(monkeypatch, "sft", 4))
    assert saved(run) == [2, 4]
    monkeypatch.undo()
    pipeline.resume(run, ["stages.sft.save_every=1"])
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    assert not differences(bits(run), bits(tmp_path / "whole"))
    assert saved(run) == [6]  # of the damaged one, which was passed over, nothing is left


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_998, 100_000, 2, 99_999):
        (tmp_path / f"step-{step:05d}").mkdir()
    (tmp_path / "step-old").mkdir()
    assert list(checkpoints(tmp_path)) == [2, 99_998, 99_999, 100_000]
    assert kept(checkpoints(tmp_path), 2, None) == {99_999, 100_000}


@pytest.mark.parametrize(
    ("last", "every", "steps"),
    [(0, None, set()), (1, None, {9}), (9, None, {2, 4, 6, 9}), (1, 3, {6, 9}), (0, 2, {2, 4, 6}), (2, 0, {6, 9})],
)
def test_kept_by_hand(last: int, every: int | None, steps: set[int]) -> None:
    assert kept([9, 2, 6, 4], last, every) == steps
