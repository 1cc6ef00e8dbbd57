"""`sharpen runs clean`: what goes is superfluous, what replaces it verifies, and a run goes on as before."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from sharpen.errors import CheckpointError, Interrupted, RunError
from sharpen.runs import retention
from sharpen.runs.cleaning import Keep, carry_out, plan
from sharpen.runs.manifest import verify
from sharpen.runs.store import RunDir
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, differences, forked, quick
from tests.runs.test_damaged import Stop, cut, flip
from tests.runs.test_kept import saved

CONSTANT = {"lr": 3e-3, "schedule": "constant", "warmup_ratio": 0.0}


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of SFT, which keeps each third step for good, and RFT."""
    run = tmp_path_factory.mktemp("made") / "run"
    with quick():
        stages = (world.sft_stage(keep_every=3, keep_last=3), world.rft_stage(optim=CONSTANT))
        pipeline.run(world.recipe(*stages, evals=[world.eval_config()]), run, base=world.folder)
    assert (saved(run), saved(run, "02-rft")) == ([2, 3, 4], [4, 5])
    return run


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def clean(run: Path, **keep: object) -> list[str]:
    """Clean; returns the folders that went, within the run."""
    with RunDir(run):
        found = plan(run, Keep(**keep))  # type: ignore[arg-type]
        carry_out(found)
    return [str(part.path.relative_to(run)) for part in found.parts]


@pytest.mark.parametrize(
    ("keep", "sft", "rft"),
    [
        ({}, [3], [5]),  # RFT stands on SFT's model, so only what the recipe keeps for good stays of SFT
        ({"every": 0}, [], [5]),
        ({"every": 4}, [4], [4, 5]),
        ({"last": 2}, [3, 4], [4, 5]),
        ({"last": 0, "every": 0}, [], []),
        ({"last": 9}, [2, 3, 4], [4, 5]),
    ],
)
def test_what_stays_is_what_was_asked_for(run: Path, keep: dict[str, int], sft: list[int], rft: list[int]) -> None:
    before = bits(run)
    clean(run, **keep)
    assert (saved(run), saved(run, "02-rft")) == (sft, rft)
    assert not differences(bits(run), before)  # models, the best weights, rollouts, evals, metrics
    assert not list(run.rglob(".*.removed"))
    assert clean(run, **keep) == []


def test_a_cleaned_run_goes_further_with_the_bits_it_would_have_had(run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(run, tmp_path / "other"))
    clean(run)
    with quick():
        for each in (run, other):
            pipeline.resume(each, ["stages.rft.steps=7"])
    assert not differences(bits(run), bits(other))


def test_what_is_lost_with_the_last_checkpoint_is_said_and_true(run: Path) -> None:
    assert not plan(run, Keep()).losses
    (loss,) = plan(run, Keep(last=0)).losses
    assert loss == "rft can then be trained further only from step 0 on"
    before = bits(run)
    clean(run, last=0)
    with quick():
        pipeline.resume(run)
        assert not differences(bits(run), before)  # finished as it was
        pipeline.resume(run, ["stages.rft.steps=6"])
    times = [line["step"] for line in bits(run)["metrics.jsonl"] if line["stage"] == "rft"]
    assert times == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
def test_a_damaged_newest_checkpoint_replaces_nothing(run: Path, harm: Callable[[Path], object]) -> None:
    harm(run / "stages/02-rft/checkpoints/step-00005/trainer.safetensors")
    with RunDir(run):
        found = plan(run, Keep())
    assert ["step-00005 of rft is damaged" in note for note in found.notes] == [True]
    clean(run)
    assert saved(run, "02-rft") == [4, 5]
    flip(run / "stages/02-rft/checkpoints/step-00004/state.json")
    clean(run, last=2)
    assert saved(run, "02-rft") == [4, 5]


def test_a_damaged_model_replaces_no_checkpoint(run: Path) -> None:
    flip(run / "models/rft/model.safetensors")
    clean(run, last=0)
    assert saved(run, "02-rft") == [5]  # one stays, for the stage is to be made anew
    flip(run / "models/sft/model.safetensors")
    clean(run)
    assert saved(run) == [3]
    with quick():
        pipeline.resume(run)
    verify(run / "models/sft")


def test_a_stopped_run_keeps_what_it_goes_on_from(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = tmp_path / "run", world.recipe(world.sft_stage())
    with quick():
        with pytest.raises(Interrupted):
            pipeline.run(recipe, run, base=world.folder, observer=Stop(monkeypatch, "sft", 5))
        assert clean(run, last=0) == ["stages/01-sft/checkpoints/step-00004"]
        pipeline.resume(run)
        pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    assert not differences(bits(run), bits(tmp_path / "whole"))


def test_rollouts_go_only_when_asked(run: Path) -> None:
    assert clean(run, rollouts=False)[-1] == "rollouts"
    assert not (run / "rollouts").exists()
    with quick():
        pipeline.resume(run)


def test_a_run_that_is_held_is_not_touched(run: Path) -> None:
    with RunDir(run), pytest.raises(RunError, match="another process"):
        clean(run)
    assert saved(run) == [2, 3, 4]


def test_without_a_readable_recipe_nothing_goes(run: Path) -> None:
    (run / "recipe.yaml").write_text("stages: 3")
    with pytest.raises(RunError, match=r"recipe\.yaml cannot be read"):
        clean(run)
    assert saved(run) == [2, 3, 4]


@pytest.mark.parametrize("moment", ["os.rename", "shutil.rmtree", "os.remove", "os.rmdir"])
def test_killed_while_it_cleans_it_leaves_no_half_and_the_next_time_finishes(
    run: Path, tmp_path: Path, moment: str
) -> None:
    def work() -> None:
        def die(event: str, arguments: object) -> None:
            if event == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        import sys

        sys.addaudithook(die)
        clean(run, last=0)

    assert forked(work, tmp_path / "log")[0] == -9
    for path in run.glob("stages/*/checkpoints/step-*"):
        verify(path)
    clean(run, last=0)
    assert saved(run, "02-rft") == [] and not list(run.rglob(".*.removed"))


def test_leftovers_of_killed_processes_go_but_not_the_only_copy(run: Path) -> None:
    for name in (".rft.writing", ".rft.old", ".gone.old", ".sft.removed"):
        (run / "models" / name).mkdir()
    assert {name for name in clean(run) if "/." in name} == {
        f"models/.{name}" for name in ("rft.old", "rft.writing", "sft.removed")
    }
    assert (run / "models/.gone.old").is_dir()


def test_removing_takes_the_place_of_an_earlier_leftover(tmp_path: Path) -> None:
    for name in ("step-00002", ".step-00002.removed"):
        (tmp_path / name / "inner").mkdir(parents=True)
    retention.remove(tmp_path / "step-00002")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError):
        verify(tmp_path / "step-00002")
