"""`--resume DIR --set ...`: a run goes further than its recipe said, to the bits of one told so from the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import sharpen as sh
from sharpen.errors import ConfigError, Interrupted
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, differences, events
from tests.runs.test_stopped import Sender

CONSTANT = {"lr": 3e-3, "schedule": "constant", "warmup_ratio": 0.0}


def trained(run: Path) -> dict[str, Any]:
    """A run's bits, without the number of steps that each line was told to lie ahead."""
    found = bits(run)
    for line in found["metrics.jsonl"]:
        del line["steps"]
    return found


@pytest.mark.parametrize("kind", ["sft", "rft"])
@pytest.mark.usefixtures("here")
def test_a_finished_run_told_to_go_on_ends_with_the_bits_of_one_told_so_from_the_start(
    world: World, tmp_path: Path, kind: str
) -> None:
    def recipe(long: bool) -> Any:
        first = world.sft_stage()
        if kind == "sft":
            stages = [world.sft_stage(epochs=4 if long else 2, optim=CONSTANT)]
        else:
            stages = [first, world.rft_stage(steps=7 if long else 5, optim=CONSTANT)]
        return world.recipe(*stages, evals=[world.eval_config()])

    run = tmp_path / "run"
    pipeline.run(recipe(False), run, base=world.folder)
    short = bits(run)
    stopped_at = len(read_lines(run / "metrics.jsonl"))
    seconds = [line["time"] for line in read_lines(run / "metrics.jsonl")]
    change = "stages.0.epochs=4" if kind == "sft" else "stages.rft.steps=7"
    summary = sh.resume(run, set=[change]).summary
    pipeline.run(recipe(True), tmp_path / "whole", base=world.folder)
    assert summary["status"] == "finished"
    assert not differences(trained(run), trained(tmp_path / "whole"))
    assert differences(bits(run), short) != []
    lines = read_lines(run / "metrics.jsonl")
    assert [line["time"] for line in lines[:stopped_at]] == seconds  # none of the steps before was done again
    assert len(lines) > stopped_at
    (told,) = events(run, "recipe_changed")
    assert ("epochs 2.0 -> 4.0" if kind == "sft" else "steps 5 -> 7") in told["message"]
    assert "resolved" in yaml.safe_load((run / "recipe.yaml").read_text())
    assert summary["stages"][-1]["tokens"] == {
        name: sum(line["tokens"][name] for line in lines if line["stage"] == kind) for name in ("sampled", "trained")
    }


@pytest.mark.usefixtures("here")
def test_a_stopped_run_can_be_told_to_go_further_or_less_far(world: World, tmp_path: Path) -> None:
    def recipe(steps: int) -> Any:
        return world.recipe(world.rft_stage(steps=steps, optim=CONSTANT), evals=[world.eval_config()])

    for steps in (4, 8):
        run = tmp_path / str(steps)
        with pytest.raises(Interrupted):
            pipeline.run(recipe(5), run, base=world.folder, observer=Sender(15, lambda what: what == "rft 3"))
        pipeline.resume(run, [f"stages.rft.steps={steps}"])
        pipeline.run(recipe(steps), tmp_path / f"whole-{steps}", base=world.folder)
        assert not differences(trained(run), trained(tmp_path / f"whole-{steps}"))


@pytest.mark.usefixtures("here")
def test_stopping_early_can_be_called_off_and_the_best_weights_asked_for_afterwards(
    world: World, tmp_path: Path
) -> None:
    stage = world.sft_stage(validation=world.sft_validation, eval_every=1, optim={"lr": 0.5, "warmup_ratio": 0.0})
    run = tmp_path / "run"
    pipeline.run(world.recipe({**stage, "early_stopping": {"patience": 1}}), run, base=world.folder)
    assert len(read_lines(run / "metrics.jsonl")) < 6
    pipeline.resume(run, ["stages.0.early_stopping=null"])
    pipeline.run(world.recipe(stage), tmp_path / "whole", base=world.folder)
    assert not differences(bits(run), bits(tmp_path / "whole"))
    pipeline.resume(run, ["stages.0.final=best"])
    best = (run / "stages" / "01-sft" / "best" / "model.safetensors").read_bytes()
    assert (run / "models" / "sft" / "model.safetensors").read_bytes() == best


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("seed=4", "seed"),
        ("stages.rft.optim.lr=1", "stages.1.optim.lr"),
        ("stages.rft.group_size=9", "stages.1.group_size"),
        ("stages.rft.data.limit=3", "stages.1.data.limit"),
        ("evals=[]", "evals"),
        ("stages=[]", "stages"),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_the_steps_done_were_made_with_is_refused_and_what_may_change_is_listed(
    finished: Path, override: str, path: str
) -> None:
    before = bits(finished), (finished / "recipe.yaml").read_text()
    with pytest.raises(ConfigError) as caught:
        pipeline.resume(finished, [override])
    assert caught.value.path == path
    for told in ("stages.N.steps", "stages.N.save_every", "report_to", "sharpen run", "--out"):
        assert told in str(caught.value)
    assert (bits(finished), (finished / "recipe.yaml").read_text()) == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("stages.sft.epochs=9", "rft has begun from its model"),
        ("stages.rft.steps=4", "has done 5 steps already"),
    ],
)
@pytest.mark.usefixtures("here")
def test_stages_that_others_stand_on_and_steps_that_are_done_stay(finished: Path, override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pipeline.resume(finished, [override])


@pytest.mark.usefixtures("here")
def test_what_changes_no_weights_leaves_them_and_takes_no_time(finished: Path) -> None:
    before = bits(finished)
    pipeline.resume(finished, ["stages.rft.save_every=3", "stages.rft.max_fault_steps=9"])
    assert bits(finished) == before
    assert yaml.safe_load((finished / "recipe.yaml").read_text())["stages"][1]["save_every"] == 3


@pytest.fixture
def finished(world: World, tmp_path: Path) -> Path:
    pipeline.run(
        world.recipe(world.sft_stage(), world.rft_stage(), evals=[world.eval_config()]),
        tmp_path / "finished",
        base=world.folder,
    )
    return tmp_path / "finished"
